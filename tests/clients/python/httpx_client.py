"""httpx; takes the proxy variables as they are."""

import sys

import httpx
import show

try:
    response = httpx.get(sys.argv[1])
    response.raise_for_status()
    show.page(response.content)
except httpx.HTTPStatusError as exception:
    show.error(exception, exception.response.headers, exception.response.content)
except httpx.TransportError as exception:
    show.error(exception)
