"""Clients of the gateway: enough of each kind for every metric to move, all of it counted here too."""

import random
import socket
import threading
import time
from collections import Counter

from .peers import BODY

TRACE_STATE = "vendor=opaque,other=1"
# Answered by the test's name server; `.invalid` is not (RFC 2606).
ALLOWED, REFUSED, MISSING = "allowed.test", "refused.test", "missing.invalid"
# The rules by name: for plain requests, for tunnels, and for those that stay open.
PAGES, MESSAGES, HELD = "pages", "messages", "held"


class Client:
    """Talks to one gateway."""

    def __init__(self, proxy: str, origin: int, echo: int, held_echo: int) -> None:
        host, port = proxy.rsplit(":", 1)
        self.address = (host, int(port))
        self.origin, self.echo, self.held_echo = origin, echo, held_echo
        self.held: list[socket.socket] = []
        # Bytes each way, by rule.
        self.counted = Counter[str]()

    def connect(self) -> socket.socket:
        connection = socket.create_connection(self.address, timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def get(self, host: str = ALLOWED, traceparent: str | None = None, times: int = 1) -> int:
        """Plain requests on one connection; the status of the last."""
        context = f"traceparent: {traceparent}\r\ntracestate: {TRACE_STATE}\r\n" if traceparent else ""
        request = f"GET http://{host}:{self.origin}/page HTTP/1.1\r\nHost: x\r\n{context}\r\n"
        with self.connect() as connection, connection.makefile("rb") as answers:
            for _ in range(times):
                connection.sendall(request.encode())
                status, length = read_head(answers)
                answers.read(length)
                if status == 200:
                    self.counted[PAGES] += len(BODY)
        return status

    def tunnel(self, target: str, traceparent: str | None = None) -> tuple[int, socket.socket]:
        """Asks for a tunnel; its status and the connection."""
        context = f"traceparent: {traceparent}\r\ntracestate: {TRACE_STATE}\r\n" if traceparent else ""
        connection = self.connect()
        connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{context}\r\n".encode())
        # Unbuffered: what follows the head is not HTTP.
        with connection.makefile("rb", buffering=0) as answers:
            status, _ = read_head(answers)
        return status, connection

    def through_tunnel(self, data: bytes, traceparent: str | None = None) -> None:
        """Sends data through a new tunnel to the echo service and back."""
        status, connection = self.tunnel(f"{ALLOWED}:{self.echo}", traceparent)
        assert status == 200, status
        with connection:
            self.exchange(connection, data, MESSAGES)

    def exchange(self, connection: socket.socket, data: bytes, rule: str) -> None:
        connection.sendall(data)
        left = len(data)
        while left:
            left -= len(connection.recv(left))
        self.counted[rule] += len(data)

    def hold(self, count: int) -> None:
        """Opens tunnels and keeps them open."""
        for _ in range(count):
            status, connection = self.tunnel(f"{ALLOWED}:{self.held_echo}")
            assert status == 200, status
            self.held.append(connection)

    def release(self) -> None:
        while self.held:
            self.held.pop().close()

    def round(self) -> None:
        """A little of everything."""
        assert self.get(times=5) == 200
        self.through_tunnel(b"t" * 5000)
        for connection in self.held:
            self.exchange(connection, b"h" * 500, HELD)
        assert self.get(host=REFUSED) == 403
        status, connection = self.tunnel(f"{ALLOWED}:1")
        connection.close()
        assert status == 403, status
        assert self.get(host=MISSING) == 502


class Load:
    """Rounds of traffic in the background until stopped."""

    def __init__(self, clients: list[Client], pause_seconds: float) -> None:
        self.stopping = threading.Event()
        self.error: Exception | None = None
        self.pause = pause_seconds
        self.threads = [threading.Thread(target=self.run, args=(client,)) for client in clients]
        for thread in self.threads:
            thread.start()

    def run(self, client: Client) -> None:
        try:
            while not self.stopping.is_set():
                client.round()
                time.sleep(random.uniform(0, 2 * self.pause))
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        if self.error:
            raise self.error


def read_head(stream) -> tuple[int, int]:
    """The status of a response, and the length of its content."""
    status = int(stream.readline().split()[1])
    length = 0
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return status, length
