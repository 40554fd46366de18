"""What an explanation is made of. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ignition_broker.model import RecordedEvent


class Confidence(StrEnum):
    """``certain``: recorded as such. ``likely``: the evidence fits this better than anything else.
    ``possible``: the evidence fits others too."""

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something that is known. ``at``: when it happened; ``event_id``: of the audit event, if one
    says it."""

    what: str
    at: datetime | None = None
    event_id: int | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """One answer to why the grant is as it is. ``code`` is stable; ``next_step`` is for a human."""

    code: str
    confidence: Confidence
    text: str
    next_step: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """``causes``: what fits best first, never none. ``tells_apart``: what would show which it was,
    where several are possible."""

    tenant: str
    client: str
    status: str
    causes: tuple[Cause, ...]
    tells_apart: str | None = None


def newest(
    events: Iterable[RecordedEvent], action: str, *outcomes: str, before: int | None = None
) -> RecordedEvent | None:
    """The newest event of the action and one of the outcomes (none named: any); older than the
    event with the id ``before``. ``events`` are newest first."""
    return next(iter(all_of(events, action, *outcomes, before=before)), None)


def all_of(
    events: Iterable[RecordedEvent],
    action: str,
    *outcomes: str,
    before: int | None = None,
    after: int | None = None,
) -> Sequence[RecordedEvent]:
    """As `newest`, all of them, those that are younger than the event with the id ``after``."""
    return [
        each
        for each in events
        if each.event.action == action
        and (not outcomes or each.event.outcome in outcomes)
        and (before is None or each.id < before)
        and (after is None or each.id > after)
    ]


def seen(each: RecordedEvent | None, what: str) -> tuple[Evidence, ...]:
    """The event as evidence; none where there is no event."""
    return () if each is None else (Evidence(what, each.at, each.id),)


def text_of(each: RecordedEvent | None, member: str) -> str:
    """A text of the event's detail; empty where it has none."""
    value = None if each is None else each.event.detail.get(member)
    return value if isinstance(value, str) else ""
