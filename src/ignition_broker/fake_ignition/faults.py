"""Faults that a test queues: what goes wrong, at which endpoint, how often.

A fault is a value; `fault_injection` turns it into behaviour.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue
from starlette.types import Scope

Endpoint = Literal["token", "revoke", "authorize", "api"]
Drop = Literal["before", "during", "after"]

FAULT_KEY = "ignition_broker.fake_ignition.fault"
PRESENTED_KEY = "ignition_broker.fake_ignition.presented"
"""Where the token endpoint leaves the fingerprint of the refresh token that it was shown."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    Attributes
    ----------
    status, body, content_type
        With a status or a body, that is the answer and the request is not carried out.
    carry_out
        With a status or a body too: the request is carried out all the same, as behind a gateway
        that gives an answer of its own.
    headers
        Added to the answer, made up or real.
    delay_seconds
        The request is carried out at once; its answer, or its end, comes that much later.
    drip_seconds
        The answer's body comes a byte at a time, with so many seconds before each.
    drop
        Cut the connection: ``before`` the request is carried out, ``after`` it was and with no
        byte of the answer sent, or ``during`` the answer's body.
    mutate
        Merged over the answer's JSON object; a null takes the key away.
    """

    status: int | None = None
    body: str | None = None
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    carry_out: bool = False
    delay_seconds: float = 0.0
    drip_seconds: float = 0.0
    drop: Drop | None = None
    mutate: dict[str, JsonValue] | None = None

    @property
    def replaces_answer(self) -> bool:
        """Whether the fault's own answer replaces the real one."""
        return self.status is not None or self.body is not None

    @property
    def drops_answer(self) -> bool:
        """Whether the request is carried out and its answer is lost."""
        return self.drop in ("during", "after") or (self.carry_out and self.replaces_answer)

    @property
    def delays_answer(self) -> bool:
        """Whether the answer is complete only some time after the request was carried out."""
        return self.delay_seconds > 0 or self.drip_seconds > 0


@dataclass
class _Repeated:
    fault: Fault
    remaining: int


@dataclass
class FaultQueues:
    """First in, first out, one queue an endpoint."""

    _queues: dict[Endpoint, deque[_Repeated]] = field(default_factory=dict)

    def add(self, endpoint: Endpoint, fault: Fault, count: int) -> None:
        """Let the next ``count`` requests that no earlier fault claims meet this one."""
        self._queues.setdefault(endpoint, deque()).append(_Repeated(fault, count))

    def take(self, endpoint: Endpoint) -> Fault | None:
        """Return the fault that the request at hand meets, if any."""
        queue = self._queues.get(endpoint)
        if not queue:
            return None
        first = queue[0]
        first.remaining -= 1
        if first.remaining <= 0:
            queue.popleft()
        return first.fault

    def pending(self) -> dict[Endpoint, int]:
        """Count the requests that are still to fail, by endpoint."""
        return {
            endpoint: sum(repeated.remaining for repeated in queue)
            for endpoint, queue in self._queues.items()
            if queue
        }

    def clear(self) -> None:
        """Drop every queued fault."""
        self._queues.clear()


def fault_of(scope: Scope) -> Fault | None:
    """Return the fault that the request at hand met."""
    fault: Fault | None = scope.get(FAULT_KEY)
    return fault
