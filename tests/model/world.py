"""Time, and what is on its way: statements, requests, their answers, notices.

Nothing happens by itself. An example's steps choose what happens next, and how late; `advance`
lets happen, in its order, whatever can't wait any longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from ignition_broker.outbound.errors import ExchangeError

if TYPE_CHECKING:
    from tests.model.replicas import Replica

POSTGRES, IGNITION, CONNECTING = "postgres", "ignition", "connecting"
PATIENCE_SECONDS = {POSTGRES: 0.1, IGNITION: 0.9, CONNECTING: 0.05}
"""How long a message is on its way at most, unless a fault holds it up."""
ANSWER_SECONDS = {POSTGRES: 0.1, IGNITION: 0.4, CONNECTING: 0.05}
NOTICE_SECONDS = 0.05
A_MOMENT = 0.001
MOST_EVENTS = 20_000


class Broken(AssertionError):
    """A promise of the product that was not kept."""

    def __init__(self, promise: str, how: str) -> None:
        super().__init__(f"{promise}: {how}")
        self.promise = promise


@dataclass(eq=False)
class Operation:
    """What a replica asks of Postgres or of Ignition: carried out at some time, answered at
    another. ``is_lost``: Ignition's answer did not come to be used. ``keep_until``: before that
    moment the process must not give it up. ``pauses``: between the pieces of an answer that drips.
    """

    replica: Replica
    target: str
    name: str
    act: Callable[[], object]
    issued_at: float
    due_at: float
    future: asyncio.Future[Any]
    answer: object = None
    is_carried_out: bool = False
    is_lost: bool = False
    has_arrived: bool = False
    keep_until: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.replica.owner}'s {self.name}"

    def is_at(self, name: str, is_carried_out: bool) -> bool:
        return self.name.startswith(name) and self.is_carried_out == is_carried_out


@dataclass(eq=False)
class Notice:
    """A NOTIFY on its way to one replica."""

    replica: Replica
    payload: tuple[str, int, str]
    committed_at: float
    due_at: float


class World:
    """``pending``: in the order in which they were sent. ``timed``: what was arranged to happen at
    some moment. ``story``: what has happened, for whoever looks for a fault's cause."""

    def __init__(self) -> None:
        self.now = 0.0
        self.replicas: list[Replica] = []
        self.pending: list[Operation | Notice] = []
        self.timed: list[tuple[float, Callable[[], None]]] = []
        self.story: list[str] = []
        self.broken: Broken | None = None
        self.is_over = False

    def time(self) -> float:
        return self.now

    def tell(self, text: str) -> None:
        self.story.append(f"{self.now:8.3f}  {text}")

    def begin(
        self, replica: Replica, target: str, name: str, act: Callable[[], object]
    ) -> Operation:
        """Sends it; whoever asked awaits its future."""
        if self.is_over:
            raise asyncio.CancelledError
        due_at = self.now + PATIENCE_SECONDS[target]
        future = replica.loop.create_future()
        operation = Operation(replica, target, name, act, self.now, due_at, future)
        self.pending.append(operation)
        future.add_done_callback(lambda _future: self._given_up(operation))
        return operation

    def _given_up(self, operation: Operation) -> None:
        """Nobody waits for its answer; what has left arrives nevertheless."""
        if operation.future.cancelled() and operation in self.pending:
            self.tell(f"{operation} is given up")
            operation.is_lost = True
            if operation.is_carried_out:
                self.pending.remove(operation)

    def proceed(self, item: Operation | Notice) -> None:
        """One step further: it arrives, or its answer does."""
        if isinstance(item, Notice):
            self.pending.remove(item)
            item.replica.hear(item)
        elif not item.is_carried_out:
            self.carry_out(item)
        elif item.pauses:
            item.due_at = self.now + item.pauses.pop()
            item.replica.loop.arrive(lambda: None)
            item.replica.run()
        else:
            self.pending.remove(item)
            self._answer(item)
        self.check()

    def carry_out(self, operation: Operation) -> None:
        try:
            operation.answer = operation.act()
        except (OSError, ExchangeError) as error:
            operation.answer = error
        operation.is_carried_out = True
        operation.due_at = self.now + ANSWER_SECONDS[operation.target]
        if operation.answer or operation.name != "claim_due":
            self.tell(f"{operation} is carried out: {_short(operation.answer)}")

    def fail(self, operation: Operation, error: Exception) -> None:
        """Its answer, if there is one, is lost."""
        self.pending.remove(operation)
        operation.answer = error
        self.tell(f"{operation} fails: {_short(error)}")
        self._answer(operation)
        self.check()

    def _answer(self, operation: Operation) -> None:
        if not operation.replica.is_alive or operation.future.done():
            return
        operation.has_arrived = not isinstance(operation.answer, Exception)

        def taken() -> None:
            if operation.future.done():
                return
            if isinstance(operation.answer, Exception):
                operation.future.set_exception(operation.answer)
            else:
                operation.future.set_result(operation.answer)

        operation.replica.loop.arrive(taken)
        operation.replica.run()

    def at(self, moment: float, happen: Callable[[], None]) -> None:
        self.timed.append((moment, happen))

    def advance(self, seconds: float) -> None:
        """Lets time pass, and all happen that can't wait for longer."""
        end = self.now + seconds
        happened = 0
        while (moment := self.next_moment()) <= end:
            self.now = max(self.now, moment)
            self._happen()
            self.check()
            happened += 1
            if happened > MOST_EVENTS:
                raise RuntimeError("\n".join(self.story[-50:]))
        self.now = end
        self._prove_hearing()

    def next_moment(self) -> float:
        moments = [item.due_at for item in self.pending]
        moments += [moment for moment, _happen in self.timed]
        for replica in self.replicas:
            timer = replica.loop.next_timer() if replica.is_running else None
            if timer is not None:
                moments.append(timer)
        return min(moments, default=float("inf"))

    def _happen(self) -> None:
        self._prove_hearing()
        for timed in [timed for timed in self.timed if timed[0] <= self.now]:
            self.timed.remove(timed)
            timed[1]()
        due = min(self.pending, key=lambda item: item.due_at, default=None)
        if due is not None and due.due_at <= self.now:
            self.proceed(due)
        for replica in self.replicas:
            replica.run()

    def _prove_hearing(self) -> None:
        """Each LISTEN connection's round trips: all that was committed before has been heard."""
        unheard: dict[Replica, float] = {}
        for item in self.pending:
            if isinstance(item, Notice):
                unheard.setdefault(item.replica, item.committed_at)
        for replica in self.replicas:
            if replica.is_running and replica.listens and replica.loop.has_seen_all:
                replica.hears_until(unheard.get(replica, self.now))

    def breaks(self, promise: str, how: str) -> NoReturn:
        """Noted as well as raised: a task keeps to itself what is raised in it."""
        self.broken = self.broken or Broken(promise, how)
        raise self.broken

    def check(self) -> None:
        if self.broken is not None:
            raise self.broken


def _short(answer: object) -> str:
    if not isinstance(answer, list):
        return repr(answer)
    return f"version {getattr(answer[0], 'version', '-')}" if answer else "no row"
