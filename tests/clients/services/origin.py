"""The origins the clients ask for: one plain, one TLS, on loopback ports that the kernel chooses.

Both serve the same page at /page, and below it the smart-HTTP git repository that holds the page, so
that every client, git included, is given the same URL. Prints `listening http=PORT https=PORT` when
both do.
"""

import argparse
import os
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

PAGE = "/page"


class Origin(ThreadingHTTPServer):
    """An origin that knows the name it is asked for under, and what it serves."""

    daemon_threads = True

    def __init__(self, name: str, page: bytes, repositories: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.name = name
        self.page = page
        self.repositories = repositories


class Handler(BaseHTTPRequestHandler):
    """Serves the page, and refuses requests that a correct gateway would not have sent."""

    server: Origin
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = urlsplit(self.path).path
        if problem := self.problem():
            self.reply(400, "text/plain", problem.encode())
        elif self.command == "GET" and self.path == PAGE:
            self.reply(200, "application/octet-stream", self.server.page)
        elif path.startswith(PAGE + "/"):
            self.git(path)
        else:
            self.reply(404, "text/plain", b"no such page")

    def problem(self) -> str | None:
        """What is wrong with this request as an origin should see it, if anything."""
        host = f"{self.server.name}:{self.server.server_port}"
        if not self.path.startswith("/"):
            return f"not origin-form: {self.path}"
        if self.headers.get_all("Host") != [host]:
            return f"Host is {self.headers.get_all('Host')}, not {host}"
        # Inside a tunnel no gateway can remove them, and wget sends Proxy-Connection there.
        tunnelled = isinstance(self.connection, ssl.SSLSocket)
        meant_for_proxy = [field for field in self.headers if field.lower().startswith("proxy-")]
        if meant_for_proxy and not tunnelled:
            return f"fields meant for the proxy: {meant_for_proxy}"
        return None

    def git(self, path: str) -> None:
        """Hands the request to git's own CGI program (RFC 3875, git-http-backend(1))."""
        url = urlsplit(self.path)
        cgi = subprocess.run(
            ["git", "http-backend"],
            input=self.rfile.read(int(self.headers.get("Content-Length", "0"))),
            stdout=subprocess.PIPE,
            check=True,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(self.server.repositories),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": url.query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            },
        )
        head, _, body = cgi.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(fields.get("Status", "200").split()[0])
        self.reply(status, fields["Content-Type"], body)

    def reply(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="host name that requests must carry")
    parser.add_argument("--page", type=Path, required=True, help="file served at /page")
    parser.add_argument("--repositories", type=Path, required=True, help="folder with the bare repository `page`")
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    options = parser.parse_args()

    page = options.page.read_bytes()
    plain = Origin(options.name, page, options.repositories)
    tls = Origin(options.name, page, options.repositories)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.certificate, options.key)
    # The handshake is left to each connection's thread: in accept() one silent client would block the rest.
    tls.socket = context.wrap_socket(tls.socket, server_side=True, do_handshake_on_connect=False)

    threading.Thread(target=tls.serve_forever, daemon=True).start()
    print(f"listening http={plain.server_port} https={tls.server_port}", flush=True)
    plain.serve_forever()


if __name__ == "__main__":
    main()
