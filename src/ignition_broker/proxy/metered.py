"""The proxy where Ignition's calls are counted: each request to the API takes one of the tenant's.

Nothing is done for a caller for whom there is no call left; then every request (the first, a replay
after a 401, a retry, a page) takes one where the `Forwarder` sends it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping

from starlette.types import Receive, Scope, Send

from ignition_broker.broker.allowance.gate import LONGEST_WAIT_SECONDS, AllowanceGate
from ignition_broker.broker.allowance.holding import Pass
from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.outbound.errors import NoConnectionFree, RequestWithdrawn, Unreachable
from ignition_broker.proxy.forward import Forwarder
from ignition_broker.proxy.forwarded_call import ForwardedCall, WaitingCall
from ignition_broker.proxy.framing import WAIT, announced
from ignition_broker.proxy.queued_callers import QueuedCaller

_SECONDS = re.compile(rb"[0-9]{1,4}")
_NO_WISHES: Mapping[bytes, bytes] = {}


class MeteredForwarder:
    """Takes a call of the tenant's before anything else is done for the caller, and is the
    `CallMeter` of the calls that it passes to ``forwarder``."""

    def __init__(self, forwarder: Forwarder, gate: AllowanceGate) -> None:
        self._forwarder = forwarder
        self._gate = gate
        self.answered = gate.answered
        """As `CallMeter.answered`."""

    def forward(
        self, scope: Scope, receive: Receive, send: Send, call: ForwardedCall
    ) -> Awaitable[None]:
        """As `Forwarder.forward`. Raises `AllowanceSpent`, and `InvalidRequest` for a malformed
        ``Broker-Wait``."""
        # In the common case nothing is taken yet: there is room, the first request takes its call
        # as every other one does, and no call has to be given back.
        call.entered = self._gate.open_pass(call.tenant, call.key)
        if call.entered is not None:
            call.meter = self
            return self._forwarder.forward(scope, receive, send, call)
        if not self._gate.is_counted(call.tenant):
            return self._forwarder.forward(scope, receive, send, call)
        call.meter = self
        wishes = announced(scope["headers"])[2] or _NO_WISHES
        return self.forward_as_wished(scope, receive, send, call, wishes)

    def try_take(self, call: ForwardedCall) -> Pass | None:
        """As `CallMeter.try_take`."""
        waiting = call.waiting
        if waiting is not None and waiting.ready is not None:
            taken, waiting.ready = waiting.ready, None
            return taken
        return self._gate.try_enter(call.tenant, call.key)

    async def take(self, call: ForwardedCall) -> Pass | None:
        """As `CallMeter.take`."""
        wait_seconds = 0.0 if call.waiting is None else call.waiting.wait_seconds
        return await self._gate.enter(call.tenant, call.key, wait_seconds)

    def unanswered(self, taken: Pass, error: BaseException) -> None:
        """As `CallMeter.unanswered`."""
        if _was_sent(error):
            self._gate.gone(taken)
        else:
            self._gate.give_back(taken)

    async def forward_as_wished(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        call: ForwardedCall,
        wishes: Mapping[bytes, bytes],
    ) -> None:
        """As `CallMeter.forward_as_wished`."""
        wait_seconds = _wait_seconds(wishes[WAIT]) if WAIT in wishes else 0
        gate = self._gate
        queued = QueuedCaller(receive)
        entered = await queued.unless_gone(gate.enter(call.tenant, call.key, wait_seconds))
        if queued.is_gone:
            return
        if entered is None:
            call.meter = None
            await self._forwarder.forward(scope, queued.receive, send, call)
            return
        waiting = WaitingCall(entered, wait_seconds)
        call.waiting, call.entered = waiting, None
        try:
            if wait_seconds:
                await call.confirm()
            await self._forwarder.forward(scope, queued.receive, send, call)
        finally:
            if waiting.ready is not None:
                gate.give_back(waiting.ready)


async def admit_page(call: ForwardedCall) -> None:
    """Takes the call for a stream's next page ahead, so that it is waited for without a slot of the
    proxy; such a stream waits as long for each page as its caller would for one call. Raises
    `AllowanceSpent`."""
    meter, waiting = call.meter, call.waiting
    if meter is not None and waiting is not None and waiting.ready is None:
        waiting.ready = meter.try_take(call) or await meter.take(call)


def _wait_seconds(value: bytes) -> int:
    if not _SECONDS.fullmatch(value) or int(value) > LONGEST_WAIT_SECONDS:
        raise InvalidRequest(
            f"Broker-Wait: give whole seconds from 0 to {LONGEST_WAIT_SECONDS}, such as 10."
        )
    return int(value)


def _was_sent(error: BaseException) -> bool:
    match error:
        case NoConnectionFree() | RequestWithdrawn():
            return False
        case Unreachable():
            return error.was_sent
        case _:
            return True
