"""Why Ignition refused a refresh token for good. Pure.

Ignition says little more than ``invalid_grant`` (RFC 6749 section 5.2), so most causes are
inferred: from what came before the refusal, from the time since the last renewal, and from the
words that Ignition put beside the code. Those are never more than a hint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ignition_broker.broker.explanations.causes import Cause, Confidence, newest, seen, text_of
from ignition_broker.broker.explanations.refusals import WEIGHED, Refusal
from ignition_broker.model import RecordedEvent
from ignition_broker.storage.grant_facts import GrantFacts

_LIKELY: Final = 60
"""From this weight on the evidence names the cause; below, it only allows it."""
_APART: Final = 15
"""Weights that are closer than that leave it open which of the causes it was."""


def causes_of_end(facts: GrantFacts, events: Sequence[RecordedEvent]) -> list[Cause]:
    """Causes by weight, of a grant that has to be connected again; never none."""
    event = newest(events, "refresh", "refused")
    ended = newest(events, "grant_end", "ended")
    if ended is not None and (event is None or ended.id > event.id):
        return [
            Cause(
                "ended_without_refresh_token",
                Confidence.CERTAIN,
                "The grant ended with its access token: Ignition had given no refresh token.",
                "Connect the tenant again; have Ignition issue refresh tokens to this client.",
                seen(ended, "the access token ended"),
            )
        ]
    before = None if event is None else event.id
    brought = [
        each
        for each in (
            newest(events, "refresh", "renewed", before=before),
            newest(events, "connect", "done", before=before),
        )
        if each is not None
    ]
    good = max(brought, key=lambda each: each.id, default=None)
    good_at = good.at if good is not None else facts.refreshed_at or facts.connected_at
    refusal = Refusal(
        event=event,
        at=facts.now if event is None else event.at,
        good=good,
        good_at=good_at,
        words=text_of(event, "reason") or (facts.last_error or ""),
        facts=facts,
        events=events,
    )
    weighed = [found for found in (weigh(refusal) for weigh in WEIGHED) if found is not None]
    return _ranked(refusal, weighed)


def _ranked(refusal: Refusal, weighed: list[tuple[int, Cause]]) -> list[Cause]:
    weighed.sort(key=lambda pair: -pair[0])
    (first, best), *rest = weighed
    is_alone = first >= _LIKELY and all(first - weight >= _APART for weight, _cause in rest)
    ranked = [replace(best, confidence=Confidence.LIKELY if is_alone else Confidence.POSSIBLE)]
    ranked += [replace(cause, confidence=Confidence.POSSIBLE) for _weight, cause in rest]
    last = refusal.good
    before = seen(last, "tokens came from Ignition for the last time")
    return [
        replace(cause, evidence=(*refusal.evidence, *before, *cause.evidence)) for cause in ranked
    ]
