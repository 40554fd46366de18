"""Messages for people: one event, or a digest of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from ignition_broker.broker.notifications.bodies import sentence_of, utc_text
from ignition_broker.storage.outbox import OutboxEvent

MOST_LISTED: Final = 100
"""Events of a digest that are listed; the others are counted."""
LONGEST_SUBJECT: Final = 150

# The most urgent first; for tenants, what is said of so many.
_SUMMARIES: Final = {
    "client.misconfigured": "Ignition rejects this broker's client",
    "provider.unavailable": "Ignition is not available",
    "tenant.reauthorization_required": "to connect again",
    "tenant.ending_soon": "ending soon",
    "provider.recovered": "Ignition is available again",
    "tenant.disconnected": "disconnected",
    "tenant.connected": "connected",
    "test": "This is a test",
}


def subject_of(events: Sequence[OutboxEvent]) -> str:
    """On one line: the sentence of one event, or how many there are of each type."""
    if len(events) == 1:
        text = sentence_of(events[0])
    else:
        counts = Counter(event.type for event in events)
        ordered = sorted(counts, key=lambda each: list(_SUMMARIES).index(each))
        text = ", ".join(_counted(each, counts[each]) for each in ordered)
    return text if len(text) <= LONGEST_SUBJECT else text[: LONGEST_SUBJECT - 1] + "…"


def lines_of(events: Sequence[OutboxEvent], console_url: str) -> list[str]:
    """The lines of the message, the oldest event first; the last says where to look."""
    listed = [f"{utc_text(event.at)[:16]}Z  {sentence_of(event)}" for event in events[:MOST_LISTED]]
    if len(events) > MOST_LISTED:
        listed.append(f"… and {len(events) - MOST_LISTED} more")
    heading = [] if len(events) == 1 else [f"{subject_of(events)}.", ""]
    return [*heading, *listed, "", console_url]


def _counted(kind: str, count: int) -> str:
    summary = _SUMMARIES[kind]
    if not kind.startswith("tenant."):
        return summary
    return f"{count} tenant{'' if count == 1 else 's'} {summary}"
