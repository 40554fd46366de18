"""What one forwarded call consists of: the caller's side, and the request to the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Receive, Scope, Send

from ignition_broker.broker.allowance.holding import Pass
from ignition_broker.model import Caller, IssuedToken
from ignition_broker.outbound.exchange import Headers
from ignition_broker.outbound.upstream import UpstreamAnswer
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


AddedHeaders = tuple[tuple[bytes, bytes], ...]


class CallMeter(Protocol):
    """Counts the requests to the API: the first of a call, a replay after a 401, a retry, a
    page."""

    def try_take(self, call: ForwardedCall) -> Pass | None:
        """Takes one of the tenant's calls, if that needs no wait; else `take` has to be asked."""

    async def take(self, call: ForwardedCall) -> Pass | None:
        """Takes one; None where the tenant's calls are not counted. Raises `AllowanceSpent`."""

    def answered(self, taken: Pass, answer: UpstreamAnswer) -> tuple[int, int]:
        """The request was answered. Returns how many calls the key has left, and in how many
        seconds the window ends."""

    def unanswered(self, taken: Pass, error: BaseException) -> None:
        """The request ended with ``error``: it counts if it may have been sent."""

    async def forward_as_wished(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        call: ForwardedCall,
        wishes: Mapping[bytes, bytes],
    ) -> None:
        """Forwards a call that may wait or wants pages, once its first request is taken. Raises
        what `Forwarder.forward` raises."""


class WaitingCall:
    """A call that had to wait for its first request, or may wait, or asks for pages. ``ready``:
    what was taken for it and is not sent yet."""

    __slots__ = ("ready", "wait_seconds")

    def __init__(self, ready: Pass, wait_seconds: float) -> None:
        self.ready: Pass | None = ready
        self.wait_seconds = wait_seconds


@dataclass(slots=True)
class ForwardedCall:
    """The call as the caller made it; ``status`` is 0 until the answer has begun.

    ``prefix`` is the path up to the tenant, ``raw_path`` what follows it, ``caller`` the key's
    name, ``key`` the key. ``confirm`` raises where the caller's key has ended since it was checked;
    it is asked ahead of every send that comes after a wait. ``meter``: None where calls are not
    counted; ``entered``: where there was room, what its requests are likely to be taken by;
    ``waiting``: None for a call that was let in at once.
    """

    tenant: str
    raw_path: bytes
    prefix: bytes
    request_id: str
    caller: str
    confirm: Callable[[], Awaitable[None]]
    key: Caller
    status: int = 0
    meter: CallMeter | None = None
    entered: Pass | None = None
    waiting: WaitingCall | None = None


@dataclass(slots=True)
class ApiRequest:
    """The request to the API without its token. ``added``: headers of ours for the answer;
    ``left``: what `CallMeter.answered` told, which becomes two more."""

    method: str
    target: bytes
    headers: Headers
    body: RequestBody
    has_body: bool
    added: AddedHeaders = ()
    left: tuple[int, int] | None = None
