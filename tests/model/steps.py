"""The steps of a plan: what happens in ordinary times, and the faults by their kind."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.model import faults, moves


@dataclass(frozen=True, repr=False)
class Step:
    move: Callable[..., object]
    arguments: tuple[object, ...] = ()

    def __repr__(self) -> str:
        return f"{self.move.__name__}({', '.join(map(repr, self.arguments))})"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(repr(self))


def steps_of(move: Callable[..., object], *arguments: Iterable[object]) -> list[Step]:
    """A step for each combination of the arguments."""
    return [Step(move, given) for given in itertools.product(*arguments)]


REPLICAS = range(3)
CLAIM = [("claim", False), ("claim", True)]
USE = [("use", False), ("use", True)]
STORE = [("store", False), ("store", True)]
RECORD = [("record", False), ("record", True), ("give_back", False)]
EXTEND = [("extend", False), ("extend", True)]
CONNECT = [("connect", False), ("connect", True)]
ANYWHERE = [*CLAIM, *CONNECT, *USE, *EXTEND, *STORE, *RECORD]
ANSWER_IN_HAND = [("use", True), ("store", False)]

ORDINARY = [
    *steps_of(moves.nothing),
    *steps_of(moves.proceed, [0, 1, 2, 3]) * 2,
    *steps_of(moves.advance, [0.15, 0.6, 1.2, 3.0, 7.0]),
    *steps_of(moves.wear_out) * 5,
    *steps_of(moves.ask, REPLICAS, [0.0, 20.0]),
    *steps_of(moves.ask, REPLICAS, [moves.NEARLY_A_LIFETIME_SECONDS]) * 3,
    *steps_of(moves.ask, [0, 1], [moves.NEARLY_A_LIFETIME_SECONDS], [5.0]),
    *steps_of(moves.leave, [0]),
]
FAULTS: dict[str, list[Step]] = {
    "insisting": [*steps_of(moves.reject, REPLICAS), *steps_of(moves.urge, [0, 1])],
    "kills": [
        *steps_of(faults.kill, [*CLAIM, *USE, *STORE], [False, True]),
        *steps_of(faults.start, REPLICAS) * 4,
    ],
    "stops": [
        *steps_of(faults.stop, ANYWHERE, [1.5, 3.5]),
        *steps_of(faults.stop, [("claim", True), *CONNECT, *ANSWER_IN_HAND], [7.0]) * 4,
    ],
    "cut": [
        *steps_of(faults.cut_off, [*USE, *STORE, *RECORD], [1.0, 8.0]),
        *steps_of(faults.cut_off, ANSWER_IN_HAND, [8.0]) * 3,
    ],
    "restarts": [
        *steps_of(faults.restart_postgres, [*CLAIM, *USE, *STORE], [0.5, 8.0]),
        *steps_of(faults.postgres_returns) * 8,
        *steps_of(faults.drop, [("store", False)]) * 4,
    ],
    "deaf": [
        *steps_of(faults.deafen, [0, 1], [4.0, 12.0]) * 2,
        *steps_of(moves.disconnect, [0, 1], [None]) * 2,
        *steps_of(moves.reconnect, [None]) * 2,
        *steps_of(moves.ask, [0, 1], [0.0]) * 4,
    ],
    "drops": steps_of(faults.drop, [("read", False), *CLAIM, *EXTEND, *STORE, *RECORD]),
    "delays": [
        *steps_of(faults.delay, ANYWHERE, [1.2, 4.5, 7.0]),
        *steps_of(faults.delay, [("claim", True)], [4.5, 4.8]) * 5,
        *steps_of(faults.delay, USE, [1.2]) * 3,
    ],
    "late answers": [
        *steps_of(faults.answer_late, [2.5, 7.0, 10.5, 14.0]) * 2,
        *steps_of(faults.drip, [3, 12], [0.8]) * 2,
        *steps_of(moves.ask, [0, 1], [moves.NEARLY_A_LIFETIME_SECONDS]) * 4,
    ],
    "long stops": [
        *steps_of(faults.stop_past_all_deadlines) * 2,
        *steps_of(moves.ask, [0, 1], [moves.NEARLY_A_LIFETIME_SECONDS]) * 2,
    ],
    "gateways": [
        *steps_of(faults.gateway_answers, [500, 502, 504]) * 2,
        *steps_of(faults.ignition_answers, [500]),
    ],
    "lost answers": [*steps_of(faults.lose, [False, True]) * 2, *steps_of(faults.garble)],
    "refusals": [
        *steps_of(faults.ignition_answers, [503, 429]),
        *steps_of(faults.ignition_answers, [401], ["invalid_client"]),
        *steps_of(faults.ignition_goes, [3.0, 15.0]),
    ],
    "disconnects": [
        *steps_of(moves.disconnect, [0, 1], [("read", True), ("use", False)]) * 2,
        *steps_of(moves.disconnect, [0, 1], [("use", True), ("store", True)]),
        *steps_of(moves.reconnect, [("record", False)]) * 5,
        *steps_of(moves.reconnect, [("read", False), ("store", False)]),
        *steps_of(moves.ask, [0, 1], [0.0]) * 2,
    ],
}
