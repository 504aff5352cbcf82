"""The outside: a page at /page, a slow one at /slow, and a name server for which every name under .test is here.

Usage: origin.py ADDRESS
"""

import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dns_responder

PAGE = b"the page"
SLOW_PARTS, SECONDS_BETWEEN_PARTS = 70, 0.1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = SLOW_PARTS if self.path == "/slow" else 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAGE) * parts))
        self.end_headers()
        for part in range(parts):
            if part:
                time.sleep(SECONDS_BETWEEN_PARTS)
            self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None:
        pass


address = sys.argv[1]
dns_responder.ADDRESS = bytes(map(int, address.split(".")))
names = socketserver.ThreadingUDPServer((address, 53), dns_responder.Udp)
threading.Thread(target=names.serve_forever, daemon=True).start()
ThreadingHTTPServer((address, 80), Handler).serve_forever()
