"""What one forwarded call consists of: the caller's side, and the request to the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from ignition_broker.model import IssuedToken
from ignition_broker.outbound.exchange import Headers
from ignition_broker.proxy.request_body import RequestBody


class Tokens(Protocol):
    """Where the proxy gets its tokens; the errors that they raise go to the caller as they are."""

    def held(self, tenant: str, min_ttl_seconds: float) -> IssuedToken | None:
        """A token from memory that lives so long; None where memory has none."""

    async def issue(
        self, tenant: str, *, min_ttl_seconds: float, at_worst_seconds: float | None = None
    ) -> IssuedToken:
        """A token that lives so long, or at the worst ``at_worst_seconds``; renewed if need be."""

    async def renew_refused(self, tenant: str, *, rejected_sha256: str) -> IssuedToken:
        """The token that follows the one with this SHA-256 (hexadecimal)."""


@dataclass(slots=True)
class ForwardedCall:
    """The call as the caller made it; ``status`` is 0 until the answer has begun.

    ``prefix`` is the path up to the tenant, ``raw_path`` what follows it, ``caller`` the key's
    name. ``confirm`` raises where the caller's key has ended since it was checked; it is asked
    ahead of every send that comes after a wait.
    """

    tenant: str
    raw_path: bytes
    prefix: bytes
    request_id: str
    caller: str
    confirm: Callable[[], Awaitable[None]]
    status: int = 0


@dataclass(slots=True)
class ApiRequest:
    """The request to the API without its token. ``added``: headers of ours for the answer."""

    method: str
    target: bytes
    headers: Headers
    body: RequestBody
    has_body: bool
    added: tuple[tuple[bytes, bytes], ...] = ()
