"""A DNS server that knows one thing: every name under .test is 127.0.0.1 and has no IPv6 address.

Answers over UDP and TCP on one loopback port and prints `listening dns=PORT` when it does. What it
does not know does not exist (NXDOMAIN).
"""

import socketserver
import struct
import threading

ADDRESS = bytes([127, 0, 0, 1])
TYPE_A, CLASS_IN = 1, 1
NO_ERROR, FORMAT_ERROR, NAME_ERROR = 0, 1, 3
# Response, authoritative, recursion available: a stub resolver asks for recursion and some insist on the bit.
FLAGS = 0x8480
RECURSION_DESIRED = 0x0100
# RFC 1035 §4.1.4: a pointer to offset 12, where the question's name begins.
QUESTION_NAME = b"\xc0\x0c"
TTL_SECONDS = 60


def respond(query: bytes) -> bytes:
    """The answer to one query (RFC 1035 §4.1); an EDNS record in it is ignored, as §7 of RFC 6891 allows."""
    identifier, flags, questions = struct.unpack_from("!HHH", query)
    labels, end = question_name(query)
    kind, qclass = struct.unpack_from("!HH", query, end)
    # Copied as it came: resolvers randomise the case of the name and compare it.
    question = query[12 : end + 4]

    answers = b""
    code = NO_ERROR
    if questions != 1:
        code = FORMAT_ERROR
    elif labels[-1:] != [b"test"]:
        code = NAME_ERROR
    elif (kind, qclass) == (TYPE_A, CLASS_IN):
        answers = QUESTION_NAME + struct.pack("!HHIH", kind, qclass, TTL_SECONDS, len(ADDRESS)) + ADDRESS

    flags = FLAGS | (flags & RECURSION_DESIRED) | code
    header = struct.pack("!HHHHHH", identifier, flags, 1, 1 if answers else 0, 0, 0)
    return header + question + answers


def question_name(query: bytes) -> tuple[list[bytes], int]:
    """The labels of the question, in lower case, and the offset after them."""
    labels: list[bytes] = []
    offset = 12
    while length := query[offset]:
        labels.append(query[offset + 1 : offset + 1 + length].lower())
        offset += 1 + length
    return labels, offset + 1


class Udp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        query, socket = self.request
        socket.sendto(respond(query), self.client_address)


class Tcp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        # RFC 1035 §4.2.2: each message follows its length; RFC 7766: several may share a connection.
        while prefix := self.rfile.read(2):
            answer = respond(self.rfile.read(int.from_bytes(prefix, "big")))
            self.wfile.write(len(answer).to_bytes(2, "big") + answer)


class TcpServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def bind() -> tuple[socketserver.ThreadingUDPServer, TcpServer]:
    """One port free for both protocols; the kernel picks for UDP, so TCP may have to try again."""
    for _ in range(20):
        udp = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Udp)
        try:
            return udp, TcpServer(udp.server_address, Tcp)
        except OSError:
            udp.server_close()
    raise SystemExit("no port is free for both UDP and TCP")


def main() -> None:
    udp, tcp = bind()
    threading.Thread(target=tcp.serve_forever, daemon=True).start()
    print(f"listening dns={udp.server_address[1]}", flush=True)
    udp.serve_forever()


if __name__ == "__main__":
    main()
