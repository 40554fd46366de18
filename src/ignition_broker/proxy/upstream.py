"""The seam to the API, and its one implementation: aiohttp, which sends targets and headers byte
for byte and hands bodies on undecoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from ignition_broker.proxy.errors import UpstreamTimeout, UpstreamUnreachable
from ignition_broker.proxy.headers import Headers

CONNECT_TIMEOUT_SECONDS = 5.0
IDLE_TIMEOUT_SECONDS = 300.0
READ_BUFFER_BYTES = 1 << 17
_ADDED_BY_AIOHTTP = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class UpstreamAnswer(Protocol):
    """Status and headers have come; the body is still on its way."""

    status: int
    headers: Headers

    def chunks(self) -> AsyncIterator[bytes]:
        """Raises `UpstreamUnreachable` where the body ends early."""
        ...

    def close(self) -> None:
        """Gives up what has not been read."""
        ...


class Upstream(Protocol):
    async def send(
        self, method: str, target: bytes, headers: Headers, body: AsyncIterator[bytes] | None
    ) -> UpstreamAnswer:
        """Raises `UpstreamUnreachable` or `UpstreamTimeout`."""
        ...

    async def aclose(self) -> None: ...


class _Answer:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = list(response.raw_headers)

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UpstreamUnreachable(f"The API's answer broke off: {_name(error)}.") from error
        finally:
            self.close()

    def close(self) -> None:
        # Back to the pool if the body was read whole, else the connection is closed.
        self._response.release() if self._response.content.at_eof() else self._response.close()


class AiohttpUpstream:
    """``timeout_seconds`` bounds the wait for the response's headers."""

    def __init__(self, api_url: str, *, timeout_seconds: float, connections: int = 1000) -> None:
        parts = urlsplit(api_url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._timeout_seconds = timeout_seconds
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self, method: str, target: bytes, headers: Headers, body: AsyncIterator[bytes] | None
    ) -> UpstreamAnswer:
        session = self._session or self._open()
        outgoing: CIMultiDict[str] = CIMultiDict(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in headers
        )
        url = URL(self._origin + target.decode("latin-1"), encoded=True)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                response = await session.request(
                    method,
                    url,
                    headers=outgoing,
                    data=body,
                    allow_redirects=False,
                    skip_auto_headers=_ADDED_BY_AIOHTTP,
                )
        except aiohttp.ConnectionTimeoutError as error:
            raise UpstreamUnreachable("The API does not accept connections.") from error
        except TimeoutError as error:
            raise UpstreamTimeout(
                f"The API sent no response headers within {self._timeout_seconds:g} s."
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamUnreachable(f"The API can't be reached: {_name(error)}.") from error
        return _Answer(response)

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BUFFER_BYTES,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=IDLE_TIMEOUT_SECONDS
            ),
        )
        return self._session

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


def _name(error: BaseException) -> str:
    return type(error).__name__
