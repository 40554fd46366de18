"""The seam to the API: what `forward` asks of a client, whichever it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from ignition_broker.proxy.headers import Headers


class UpstreamAnswer(Protocol):
    """Status and headers have come; the body may still be on its way."""

    status: int
    headers: Headers

    @property
    def is_whole(self) -> bool:
        """Whether all of the body has come, so that one `read` has what is left of it."""
        ...

    async def read(self) -> bytes:
        """What has come since the last time, at least a byte; ``b""`` at the body's end.

        Raises `UpstreamUnreachable` where the body ends early, `UpstreamTimeout` where nothing
        comes for too long.
        """
        ...

    async def aclose(self) -> None:
        """Gives up what has not been read."""
        ...


class Upstream(Protocol):
    async def send(
        self, method: str, target: bytes, headers: Headers, body: AsyncIterator[bytes] | None
    ) -> UpstreamAnswer:
        """Raises `UpstreamUnreachable` or `UpstreamTimeout`; `Unavailable` where every connection
        that may be held is in use."""
        ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """``timeout_seconds`` bounds the wait for the response's headers once the API has taken the
    request, ``idle_timeout_seconds`` the one between two pieces of the answer."""

    connect_timeout_seconds: float
    timeout_seconds: float
    idle_timeout_seconds: float
    connections: int
