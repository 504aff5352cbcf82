"""How each Python client says what it got: see the header of ../run."""

import sys
import traceback
from collections.abc import Mapping
from email.message import Message


def page(body: bytes) -> None:
    """The page came."""
    sys.stdout.buffer.write(b"body: " + body)


def error(
    exception: BaseException,
    headers: Mapping[str, str] | Message | None = None,
    body: bytes | None = None,
) -> None:
    """It did not: what the exception says, as under a traceback, and what else of the answer it carries."""
    print("error:", "".join(traceback.format_exception_only(exception)).splitlines()[0])
    if headers and "Proxy-Status" in headers:
        print("proxy-status:", headers["Proxy-Status"])
    if body is not None:
        print("body:", body.decode())
