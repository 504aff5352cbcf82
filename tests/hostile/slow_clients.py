"""Plays slowhttptest's attacks through the gateway and says of each whether it was withstood."""

import dataclasses
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable

ATTACKERS = 200

# So many of them must be seen at once, and be counted: on a loaded machine some come late, and end with the attack.
SEEN = ATTACKERS // 2

# How long an attack goes on: longer than any timeout below, so that each is seen to bite.
ATTACK_SECONDS = 8

# What may pass within a head, between two requests, and while content does not move.
TIMEOUTS = {
    "OUTGATE_HEADER_TIMEOUT": "2s",
    "OUTGATE_KEEPALIVE_TIMEOUT": "2s",
    "OUTGATE_RESPONSE_TIMEOUT": "3s",
}

# How soon after an attack nothing may be open any more.
GRACE_SECONDS = 15

# Two hundred attackers with their buffers on top of what the program takes by itself.
MOST_RESIDENT_BYTES = 256 << 20

# Many times a loaded machine's worst answer, and far less than an attack.
SLOWEST_ANSWER_SECONDS = 2.0

BIG = b"x" * (4 << 20)


class Origin(http.server.BaseHTTPRequestHandler):
    """Answers what it is asked for; the big page is more than the buffers on its way hold."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if "Range" in self.headers:
            self.server.count_range()
        content = BIG if self.path == "/big" else b"ok"
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Origin)
        self.counting = threading.Lock()
        self.ranges = 0

    def count_range(self) -> None:
        """No ordinary client asks for a range."""
        with self.counting:
            self.ranges += 1

    def handle_error(self, *_: object) -> None:
        """A connection that the gateway gives up is no error here."""


class Gateway:
    """The program, as it is started in production but for short timeouts."""

    def __init__(self, binary: str, origin: int) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "OUTGATE_LISTEN": "127.0.0.1:0",
            "OUTGATE_ADMIN_LISTEN": "127.0.0.1:0",
            "OUTGATE_INSPECT_LISTEN": "off",
            "OUTGATE_ALLOW": f"127.0.0.1:{origin}",
            "OUTGATE_LOG_FORMAT": "json",
            "OUTGATE_ACCESS_LOG": "false",
            **TIMEOUTS,
        }
        self.process = subprocess.Popen([binary], env=environment, stdout=subprocess.PIPE, text=True)
        addresses = {}
        while not {"proxy", "admin"} <= addresses.keys():
            line = json.loads(self.process.stdout.readline())
            if line["message"] == "listening":
                addresses[line["listener"]] = line["address"]
        # Whoever does not read a pipe in the end stops who writes it.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.proxy, self.admin = addresses["proxy"], addresses["admin"]

    def metric(self, name: str, label: str = "") -> float:
        """The sum over what `/metrics` shows under a name and, where one is given, with a label."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=5) as response:
            lines = response.read().decode().splitlines()
        shown = re.compile(rf"{name}\{{.*{re.escape(label)}" if label else rf"{name}[{{ ]")
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if shown.match(line))

    def open(self) -> float:
        return (
            self.metric("outgate_connections_active", 'listener="proxy"')
            + self.metric("outgate_tunnels_active")
            + self.metric("outgate_pool_connections", 'state="busy"')
        )


class Client(threading.Thread):
    """An ordinary client: a new connection and a request, again and again."""

    def __init__(self, gateway: Gateway, origin: int) -> None:
        super().__init__(daemon=True)
        host, port = gateway.proxy.rsplit(":", 1)
        self.proxy = (host, int(port))
        self.request = f"GET http://127.0.0.1:{origin}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        self.over = threading.Event()
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def run(self) -> None:
        while not self.over.wait(0.02):
            started = time.monotonic()
            try:
                answer = self.ask()
            except OSError as error:
                answer = str(error)
            if not answer.startswith("HTTP/1.1 200 OK\r\n") or not answer.endswith("\r\n\r\nok"):
                self.failures.append(answer)
            self.seconds.append(time.monotonic() - started)

    def ask(self) -> str:
        with socket.create_connection(self.proxy, timeout=SLOWEST_ANSWER_SECONDS * 2) as stream:
            stream.sendall(self.request.encode())
            return b"".join(iter(lambda: stream.recv(4096), b"")).decode()


class Watch(threading.Thread):
    """What `/metrics` shows while an attack goes on."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(daemon=True)
        self.gateway = gateway
        self.over = threading.Event()
        self.most_open = 0.0
        self.most_resident = 0.0

    def run(self) -> None:
        while not self.over.wait(0.1):
            active = self.gateway.metric("outgate_connections_active", 'listener="proxy"')
            self.most_open = max(self.most_open, active)
            resident = self.gateway.metric("process_resident_memory_bytes")
            self.most_resident = max(self.most_resident, resident)


def eventually_nothing_is_open(gateway: Gateway) -> bool:
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline:
        if gateway.open() == 0:
            return True
        time.sleep(0.1)
    return False


@dataclasses.dataclass
class Attack:
    """One of slowhttptest's, and what must count each attacker, with its name."""

    name: str
    options: list[str]
    counter: str
    count: Callable[[], float]

    # Whether the attackers stay, so that they are all there at once.
    stays: bool = True


def play(attack: Attack, gateway: Gateway, origin: int) -> list[str]:
    """Plays one attack; what was not withstood."""
    client, watch = Client(gateway, origin), Watch(gateway)
    counted = attack.count()
    client.start()
    watch.start()
    command = ["slowhttptest", "-c", str(ATTACKERS), "-r", str(ATTACKERS), "-l", str(ATTACK_SECONDS)]
    attacker = subprocess.run(
        [*command, "-d", gateway.proxy, *attack.options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=ATTACK_SECONDS * 10,
    )
    for thread in (client, watch):
        thread.over.set()
        thread.join()
    wrong = []
    if attacker.returncode != 0:
        wrong.append(f"slowhttptest exited with {attacker.returncode}: {attacker.stdout[-500:]!r}")
    if attack.stays and watch.most_open < SEEN:
        wrong.append(f"only {watch.most_open:.0f} connections at once: that was no attack")
    if client.failures or len(client.seconds) < ATTACK_SECONDS:
        wrong.append(f"{len(client.failures)} of {len(client.seconds)} requests failed: {client.failures[:3]}")
    if max(client.seconds, default=0.0) > SLOWEST_ANSWER_SECONDS:
        wrong.append(f"a request took {max(client.seconds):.1f} s")
    if watch.most_resident > MOST_RESIDENT_BYTES:
        wrong.append(f"{watch.most_resident:.0f} bytes resident")
    if not eventually_nothing_is_open(gateway):
        wrong.append(f"{gateway.open():.0f} still open after {GRACE_SECONDS} s")
    if (rise := attack.count() - counted) < SEEN:
        wrong.append(f"{attack.counter} rose by {rise:.0f} only")
    print(
        f"{'FAIL' if wrong else 'ok  '}  {attack.name}: {watch.most_open:.0f} connections at once, "
        f"{len(client.seconds)} requests served meanwhile, the slowest in {max(client.seconds):.3f} s, "
        f"{watch.most_resident / (1 << 20):.0f} MiB",
        *(f"\n        {line}" for line in wrong),
        flush=True,
    )
    return wrong


def main() -> int:
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = server.server_port
    gateway = Gateway(sys.argv[1], origin)
    url = f"http://127.0.0.1:{origin}"

    def shown(of: str, reason: str) -> tuple[str, Callable[[], float]]:
        name, label = f"outgate_{of}_total", f'reason="{reason}"'
        return f"{name} with {label}", lambda: gateway.metric(name, label)

    attacks = [
        Attack("slow heads", ["-H", "-i", "1", "-u", f"{url}/"], *shown("connections_rejected", "header_timeout")),
        Attack("slow content", ["-B", "-i", "5", "-s", "8192", "-u", f"{url}/"], *shown("requests", "content_timeout")),
        Attack(
            "slow readers",
            ["-X", "-w", "1", "-y", "64", "-n", "5", "-z", "8", "-u", f"{url}/big"],
            *shown("requests", "content_timeout"),
        ),
        Attack(
            "ranges",
            ["-R", "-a", "1", "-b", "3000", "-u", f"{url}/"],
            "requests for ranges at the origin",
            lambda: server.ranges,
            stays=False,
        ),
    ]
    failed = 0
    try:
        for attack in attacks:
            failed += bool(play(attack, gateway, origin))
    finally:
        gateway.process.terminate()
        exit_code = gateway.process.wait(60)
    if exit_code != 0:
        print(f"FAIL  the gateway exited with {exit_code}")
        failed += 1
    print(f"{len(attacks) + 1 - failed} passed, {failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
