"""The seam to the API, and its one implementation: aiohttp, which sends targets and headers byte
for byte and hands bodies on undecoded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.proxy.errors import UpstreamTimeout, UpstreamUnreachable
from ignition_broker.proxy.headers import Headers

READ_BUFFER_BYTES = 1 << 17
# What nginx takes by default is far less; aiohttp's own 128 headers are too few for some APIs.
HEADER_BYTES = 1 << 16
MOST_HEADERS = 1000
# Below what servers keep idle connections for (uvicorn: 5 s), lest a call meet a closing one.
KEEP_ALIVE_SECONDS = 4.0
_ADDED_BY_AIOHTTP = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class UpstreamAnswer(Protocol):
    """Status and headers have come; the body is still on its way."""

    status: int
    headers: Headers

    def chunks(self) -> AsyncIterator[bytes]:
        """Raises `UpstreamUnreachable` where the body ends early, `UpstreamTimeout` where nothing
        comes for too long."""
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
    def __init__(self, response: aiohttp.ClientResponse, idle_timeout_seconds: float) -> None:
        self._response = response
        self._idle_timeout_seconds = idle_timeout_seconds
        self.status = response.status
        self.headers = list(response.raw_headers)

    async def chunks(self) -> AsyncIterator[bytes]:
        content = self._response.content
        try:
            while True:
                async with asyncio.timeout(self._idle_timeout_seconds):
                    chunk = await content.readany()
                if not chunk:
                    return
                yield chunk
        except TimeoutError as error:
            raise UpstreamTimeout(
                f"The API's answer fell silent for {self._idle_timeout_seconds:g} s."
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamUnreachable(f"The API's answer broke off: {_name(error)}.") from error
        finally:
            self.close()

    def close(self) -> None:
        # Back to the pool if the body was read whole, else the connection is closed.
        self._response.release() if self._response.content.at_eof() else self._response.close()


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """``timeout_seconds`` bounds the wait for the response's headers once the API has taken the
    request, ``idle_timeout_seconds`` the one between two pieces of the answer."""

    connect_timeout_seconds: float
    timeout_seconds: float
    idle_timeout_seconds: float
    connections: int


class AiohttpUpstream:
    def __init__(self, api_url: str, limits: UpstreamLimits) -> None:
        parts = urlsplit(api_url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._limits = limits
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self, method: str, target: bytes, headers: Headers, body: AsyncIterator[bytes] | None
    ) -> UpstreamAnswer:
        session = self._session or self._open()
        url, outgoing = self._as_text(target, headers)
        seconds = self._limits.timeout_seconds
        try:
            async with asyncio.timeout(seconds) as wait:
                response = await session.request(
                    method,
                    url,
                    headers=outgoing,
                    data=None if body is None else _timed(body, wait, seconds),
                    allow_redirects=False,
                    skip_auto_headers=_ADDED_BY_AIOHTTP,
                )
        except aiohttp.ConnectionTimeoutError as error:
            raise UpstreamUnreachable(
                "The API does not accept connections within "
                f"{self._limits.connect_timeout_seconds:g} s."
            ) from error
        except TimeoutError as error:
            raise UpstreamTimeout(
                f"The API sent no response headers within {seconds:g} s."
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamUnreachable(
                f"The API can't be reached: {_name(error)}.",
                was_sent=not isinstance(error, aiohttp.ClientConnectorError),
            ) from error
        return _Answer(response, self._limits.idle_timeout_seconds)

    def _as_text(self, target: bytes, headers: Headers) -> tuple[URL, CIMultiDict[str]]:
        """aiohttp writes text as UTF-8: other bytes would not arrive as they came."""
        try:
            url = URL(self._origin + target.decode("utf-8"), encoded=True)
            return url, CIMultiDict(
                (name.decode("utf-8"), v.decode("utf-8")) for name, v in headers
            )
        except UnicodeDecodeError:
            raise InvalidRequest("The query or a header holds bytes that are no UTF-8.") from None

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._limits.connections,
                ttl_dns_cache=60,
                keepalive_timeout=KEEP_ALIVE_SECONDS,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            max_headers=MOST_HEADERS,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._limits.connect_timeout_seconds
            ),
        )
        return self._session

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


async def _timed(
    body: AsyncIterator[bytes], wait: asyncio.Timeout, seconds: float
) -> AsyncIterator[bytes]:
    """Counts the time anew from each piece that the API takes, and not while the caller is slow."""
    now = asyncio.get_running_loop().time

    def reschedule(at: float | None) -> None:
        # The headers may have come, or not in time, while the body is still on its way.
        with contextlib.suppress(RuntimeError):
            wait.reschedule(at)

    reschedule(None)
    async for chunk in body:
        reschedule(now() + seconds)
        yield chunk
        reschedule(None)
    reschedule(now() + seconds)


def _name(error: BaseException) -> str:
    return type(error).__name__
