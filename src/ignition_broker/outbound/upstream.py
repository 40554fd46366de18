"""The seam to the API: what `forward` asks of a client, whichever it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from ignition_broker.outbound.exchange import Headers


class UpstreamAnswer(Protocol):
    """Status and headers have come; the body may still be on its way."""

    status: int
    headers: Headers
    tells_limit: bool
    """Whether one of the headers describes a rate limit (`rate_limits.LIMIT_HEADERS`)."""

    @property
    def is_whole(self) -> bool:
        """Whether all of the body has come, so that one `read` has what is left of it."""
        ...

    async def read(self) -> bytes:
        """What has come since the last time, at least a byte; ``b""`` at the body's end.

        Raises `Unreachable` where the body ends early, `TimedOut` where nothing comes for too
        long.
        """
        ...

    async def aclose(self) -> None:
        """Gives up what has not been read."""
        ...


class Upstream(Protocol):
    async def send(
        self,
        tenant: str,
        method: str,
        target: bytes,
        headers: Headers,
        body: AsyncIterator[bytes] | None,
    ) -> UpstreamAnswer:
        """Nothing that the API sends in answer to one tenant reaches another. Raises
        `ExchangeError`."""
        ...

    async def aclose(self) -> None: ...
