"""aiohttp; takes the proxy variables only when told to (trust_env)."""

import asyncio
import sys

import aiohttp
import show


async def fetch(url: str) -> None:
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(url) as response:
        body = await response.read()
        try:
            response.raise_for_status()
            show.page(body)
        except aiohttp.ClientResponseError as exception:
            show.error(exception, response.headers, body)


try:
    asyncio.run(fetch(sys.argv[1]))
except aiohttp.ClientHttpProxyError as exception:
    show.error(exception, exception.headers)
