"""A workload that asks for pages without a pause, in three ways, until /tmp/stop exists; exits 1 if one did not come.

As the Service would, each new connection goes to one of the gateways in /service/endpoints. Nothing is tried twice.
"""

import http.client
import random
import sys
import threading
from collections import Counter
from pathlib import Path

ORIGIN = "allowed.test"
PAGE = b"the page"
PAGE_URL, SLOW_URL = f"http://{ORIGIN}/page", f"http://{ORIGIN}/slow"
SLOW_PAGE = PAGE * 70

stop = Path("/tmp/stop")
came: Counter[str] = Counter()
lost: list[str] = []


def connect() -> http.client.HTTPConnection:
    gateways = Path("/service/endpoints").read_text().split()
    return http.client.HTTPConnection(random.choice(gateways), 3128, timeout=20)


def get(connection: http.client.HTTPConnection, target: str, page: bytes) -> http.client.HTTPResponse:
    connection.request("GET", target)
    response = connection.getresponse()
    body = response.read()
    if (response.status, body) != (200, page):
        raise ValueError(f"{response.status} {response.reason}: {body!r}")
    return response


def a_connection_each() -> None:
    connection = connect()
    get(connection, PAGE_URL, PAGE)
    connection.close()


def kept_alive() -> None:
    """A thousand requests on one connection, or fewer where the gateway says that it is the last."""
    connection = connect()
    for _ in range(1000):
        if get(connection, PAGE_URL, PAGE).will_close:
            break
    connection.close()


def slow_through_a_tunnel() -> None:
    """Seven seconds: longer than the gateway goes on accepting once it is told to stop."""
    connection = connect()
    connection.set_tunnel(ORIGIN, 80)
    get(connection, "/slow", SLOW_PAGE)
    connection.close()


def work(way) -> None:
    while not stop.exists():
        try:
            way()
            came[way.__name__] += 1
        except Exception as problem:
            lost.append(f"{way.__name__}: {type(problem).__name__}: {problem}")


ways = (a_connection_each, kept_alive, slow_through_a_tunnel)
workers = [threading.Thread(target=work, args=(way,)) for way in ways for _ in range(2)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(dict(came), "lost:", lost[:10])
sys.exit(1 if lost or len(came) < len(ways) else 0)
