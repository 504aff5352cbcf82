"""What the gateway and the collector talk to: an origin, an echo service, and a sink of OTLP as JSON."""

import gzip
import json
import socketserver
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .processes import in_background

BODY = b"x" * 2000
# Long enough to stand out from the gateway's own time, short enough for many requests.
THINKING_SECONDS = 0.02


class Origin(ThreadingHTTPServer):
    """Answers every request with BODY, and remembers the trace context it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), OriginHandler)
        self.parents: list[tuple[str | None, str | None]] = []
        in_background(self.serve_forever)


class OriginHandler(BaseHTTPRequestHandler):
    server: Origin
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.parents.append((self.headers["traceparent"], self.headers["tracestate"]))
        time.sleep(THINKING_SECONDS)
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Echo(socketserver.ThreadingTCPServer):
    """Sends back what it is sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), EchoHandler)
        in_background(self.serve_forever)


class EchoHandler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


class Sink(ThreadingHTTPServer):
    """Takes what the collector exports, and keeps its spans with the resource they came from."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), SinkHandler)
        self.spans: list[dict] = []
        in_background(self.serve_forever)


class SinkHandler(BaseHTTPRequestHandler):
    server: Sink
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            content = gzip.decompress(content)
        for resource in json.loads(content)["resourceSpans"]:
            about = attributes(resource["resource"])
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    about_span = attributes(span)
                    self.server.spans.append({**span, "attributes": about_span, "resource": about})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def attributes(holder: dict) -> dict[str, str]:
    """OTLP's list of typed values as a mapping to text."""
    return {pair["key"]: str(next(iter(pair["value"].values()), "")) for pair in holder.get("attributes", [])}
