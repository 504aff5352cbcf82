"""What the collector was sent: names, kinds, parents and attributes of the spans."""

import secrets

from .peers import Origin, Sink
from .processes import eventually
from .report import Report, same
from .traffic import ALLOWED, REFUSED, TRACE_STATE, Client

INTERNAL, SERVER, CLIENT = 1, 2, 3


class Caller:
    """A caller's span: the parent of what is asked of the gateway."""

    def __init__(self) -> None:
        self.trace = secrets.token_hex(16)
        self.span = secrets.token_hex(8)
        self.traceparent = f"00-{self.trace}-{self.span}-01"


def check_traces(report: Report, protocol: str, client: Client, sink: Sink, origin: Origin) -> None:
    """Asks for one thing of each kind, and looks for its spans."""

    def spans_of(caller: Caller, count: int) -> dict[tuple[str, int], dict]:
        def arrived() -> list[dict] | None:
            spans = [span for span in sink.spans if span["traceId"] == caller.trace]
            return spans if len(spans) >= count else None

        spans = eventually(f"{count} spans of a trace", arrived)
        same(len(spans), count, "the number of spans")
        for span in spans:
            same(span.get("traceState"), TRACE_STATE, "the trace state")
            same(span["resource"]["service.name"], f"gate-{protocol}", "service.name")
            same(span["resource"]["deployment.environment.name"], "test", "a resource attribute")
        return {(span["name"], span["kind"]): span for span in spans}

    def plain_request() -> str:
        caller = Caller()
        same(client.get(traceparent=caller.traceparent), 200, "the status")
        # The name is in the cache, and the connection may be kept: neither is certain.
        spans = eventually("the spans of a request", lambda: request_spans(sink, caller))
        server, sent = spans["GET", SERVER], spans["GET", CLIENT]
        same(server["parentSpanId"], caller.span, "the parent of the request")
        same(sent["parentSpanId"], server["spanId"], "the parent of what was sent upstream")
        expect(
            server,
            {
                "http.request.method": "GET",
                "http.response.status_code": "200",
                "url.scheme": "http",
                "url.path": "/page",
                "server.address": ALLOWED,
                "server.port": str(client.origin),
                "client.address": "127.0.0.1",
                "rule": "pages",
                "result": "allowed",
                "reason": "ok",
            },
        )
        expect(
            sent,
            {
                "http.request.method": "GET",
                "http.response.status_code": "200",
                "url.full": f"http://{ALLOWED}:{client.origin}/page",
                "network.peer.address": "127.0.0.1",
                "network.peer.port": str(client.origin),
            },
        )
        injected = (f"00-{caller.trace}-{sent['spanId']}-01", TRACE_STATE)
        assert injected in origin.parents, f"{injected} did not reach the origin"
        return ", ".join(sorted({name for name, _ in spans}))

    def tunnel() -> str:
        caller = Caller()
        client.through_tunnel(b"trace me", caller.traceparent)
        spans = spans_of(caller, 4)
        server = spans["CONNECT", SERVER]
        same(server["parentSpanId"], caller.span, "the parent of the CONNECT")
        expect(server, {"http.request.method": "CONNECT", "http.response.status_code": "200"})
        for name in ["dns lookup", "tcp connect", "tunnel"]:
            same(spans[name, INTERNAL]["parentSpanId"], server["spanId"], f"the parent of {name}")
        expect(spans["dns lookup", INTERNAL], {"dns.question.name": ALLOWED})
        expect(spans["tcp connect", INTERNAL], {"network.peer.port": str(client.echo)})
        expect(spans["tunnel", INTERNAL], {"bytes_sent": "8", "bytes_received": "8", "end": "closed"})
        return ", ".join(sorted(name for name, _ in spans))

    def refusal() -> str:
        caller = Caller()
        same(client.get(REFUSED, caller.traceparent), 403, "the status")
        server = spans_of(caller, 1)["GET", SERVER]
        expect(server, {"error.type": "host_not_allowed", "http.response.status_code": "403"})
        return server["attributes"]["error.type"]

    def failure() -> str:
        caller = Caller()
        same(client.get("missing.invalid", caller.traceparent), 502, "the status")
        spans = spans_of(caller, 2)
        for key in [("GET", SERVER), ("dns lookup", INTERNAL)]:
            expect(spans[key], {"error.type": "dns_not_found"})
            same(spans[key]["status"]["code"], 2, "the status of the span")
        return "dns_not_found"

    report.check(f"{protocol}: a plain request", plain_request)
    report.check(f"{protocol}: a tunnel", tunnel)
    report.check(f"{protocol}: a refusal", refusal)
    report.check(f"{protocol}: a failure", failure)


def request_spans(sink: Sink, caller: Caller) -> dict[tuple[str, int], dict] | None:
    """The spans of a forwarded request, once both of HTTP are there."""
    spans = [span for span in sink.spans if span["traceId"] == caller.trace]
    found = {(span["name"], span["kind"]): span for span in spans}
    return found if {("GET", SERVER), ("GET", CLIENT)} <= set(found) else None


def expect(span: dict, expected: dict[str, str]) -> None:
    """Fails unless the span has these attributes."""
    for key, value in expected.items():
        same(span["attributes"].get(key), value, f"{key} of {span['name']}")
