"""What a refused refresh token may be due to, each with the weight of its evidence. Pure.

Weights compare causes of one refusal with one another; `ended` says what follows from them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ignition_broker.broker.explanations.causes import Cause, Confidence, Evidence, all_of, seen
from ignition_broker.model import RecordedEvent
from ignition_broker.storage.grant_facts import GrantFacts

CONNECT_AGAIN: Final = "Connect the tenant again."
LONG_IDLE: Final = timedelta(days=80)
"""Refresh tokens are known to lapse after 90 days without use at Ignition, and after 30 to 180 at
others."""
RATHER_IDLE: Final = timedelta(days=25)
_SOON: Final = timedelta(minutes=2)
RATHER_LATE: Final = timedelta(minutes=10)
"""A grant in use is renewed before its access token ends; an idle one once a day."""

_SAYS_EXPIRED: Final = re.compile(r"\bexpired?\b|\blapsed\b", re.IGNORECASE)
_SAYS_USED: Final = re.compile(r"\bre-?use|\bused\b|\bspent\b|\brotat|\breplay", re.IGNORECASE)
_SAYS_REVOKED: Final = re.compile(
    r"\brevoked\b|\bwithdr[ae]wn?\b|\bconsent\b|\bde-?authori[sz]ed\b|\buninstalled\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """``good``: the last event that brought tokens; ``good_at``: when that was, as far as known.
    ``words``: Ignition's."""

    event: RecordedEvent | None
    at: datetime
    good: RecordedEvent | None
    good_at: datetime | None
    words: str
    facts: GrantFacts
    events: Sequence[RecordedEvent]

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        said = f"Ignition refused the refresh token: {self.words or 'invalid_grant'}"
        if self.event is None:
            return (Evidence(said),)
        return seen(self.event, said)

    @property
    def idle(self) -> timedelta:
        return timedelta(0) if self.good_at is None else self.at - self.good_at

    @property
    def was_early(self) -> bool:
        """Whether it came while the access token had not expired, for another reason than the
        renewal ahead of its end: a caller had found that the API rejects the token."""
        ends_at = self.facts.expires_at
        asked_by = None if self.event is None else self.event.event.actor
        return ends_at is not None and self.at < ends_at and asked_by not in (None, "broker")


def _cause(code: str, text: str, next_step: str, *evidence: Evidence) -> Cause:
    return Cause(code, Confidence.POSSIBLE, text, next_step, evidence)


def _lost_answer(refusal: Refusal) -> tuple[int, Cause] | None:
    after = None if refusal.good is None else refusal.good.id
    lost = all_of(refusal.events, "refresh", "answer_lost", after=after)
    known = refusal.event is not None and refusal.event.event.detail.get("after_lost_answer")
    if not lost and not known:
        return None
    return 85, _cause(
        "lost_answer",
        "Ignition carried out an earlier refresh whose answer never arrived, so the refresh token "
        "that is stored here was already spent.",
        f"{CONNECT_AGAIN} Look at the network between the broker and Ignition at that time.",
        *(Evidence("the answer to a refresh was lost", each.at, each.id) for each in lost[:3]),
    )


def _restored(refusal: Refusal) -> tuple[int, Cause] | None:
    behind = all_of(refusal.events, "database_went_back", "behind")
    ended_at = refusal.facts.expires_at
    is_late = ended_at is not None and refusal.at - ended_at > RATHER_LATE
    if behind:
        return 95, _cause(
            "database_restored",
            "The database went back in time, by a failover or a restored backup, and with it went "
            "the newest refresh token.",
            f"{CONNECT_AGAIN} Keep replicas running through a restore: they store again what they "
            "remember.",
            *(Evidence("a row was older than a replica had seen", e.at, e.id) for e in behind[:3]),
        )
    if is_late or _SAYS_USED.search(refusal.words):
        return 61 if is_late and _SAYS_USED.search(
            refusal.words
        ) else 20 if is_late else 55, _cause(
            "database_restored",
            "The broker did not run for a while, or its database is a restored backup that lacks "
            "the newest refresh token.",
            f"{CONNECT_AGAIN} Ask whether the database was restored.",
            *((Evidence("the access token had ended", ended_at),) if is_late else ()),
        )
    return None


def _other_tenant(refusal: Refusal) -> tuple[int, Cause] | None:
    since = refusal.good_at
    others = [
        other
        for other in refusal.facts.others
        if since is not None and since < other.connected_at < refusal.at
    ]
    if not others:
        return None
    return 80, _cause(
        "other_tenant_connected",
        "Another tenant was connected to the same account at Ignition, which ends earlier grants "
        "of that account at some providers.",
        "Let one tenant have the account: disconnect the other one, then connect this one again.",
        *(Evidence(f"{each.tenant} was connected", each.connected_at) for each in others),
    )


def _lapsed(refusal: Refusal) -> tuple[int, Cause] | None:
    end = refusal.facts.refresh_token_expires_at
    is_over = end is not None and end <= refusal.at + _SOON
    says_so = _SAYS_EXPIRED.search(refusal.words) is not None
    if not (is_over or says_so or refusal.idle >= RATHER_IDLE):
        return None
    weight = 40 if refusal.idle >= RATHER_IDLE else 0
    weight = max(weight, 78 if refusal.idle >= LONG_IDLE else 0, 88 if is_over else 0)
    if says_so:
        # Some say "expired or revoked" of either.
        weight = max(weight, 66 if _SAYS_REVOKED.search(refusal.words) else 88)
    evidence = []
    if refusal.idle >= timedelta(days=1):
        evidence.append(Evidence(f"{refusal.idle.days} days without a renewal", refusal.good_at))
    if is_over:
        evidence.append(Evidence("the refresh token ended, as Ignition had told", end))
    return weight, _cause(
        "refresh_token_lapsed",
        "The refresh token had lapsed: it was not used for longer than Ignition keeps one, or "
        "its life was over.",
        f"{CONNECT_AGAIN} Keep the broker running: it renews idle grants too (BROKER_KEEPALIVE).",
        *evidence,
    )


def _second_party(refusal: Refusal) -> tuple[int, Cause] | None:
    says_so = _SAYS_USED.search(refusal.words) is not None
    weight = 62 if says_so else 15 if refusal.was_early else 25
    if _SAYS_REVOKED.search(refusal.words):
        # Providers that notice a second use revoke the whole grant (RFC 9700 section 4.14.2).
        weight = max(weight, 55)
    return weight, _cause(
        "used_by_another_party",
        "Somebody else used the refresh token: another system that holds a copy of it, such as an "
        "integration that this broker replaced, or a thief.",
        "Stop whatever else has the token, then connect the tenant again. If nothing else should "
        "have it, treat it as leaked (SECURITY.md).",
        *((Evidence("Ignition's words speak of a token that was used before"),) if says_so else ()),
    )


def _withdrawn(refusal: Refusal) -> tuple[int, Cause] | None:
    says_used = _SAYS_USED.search(refusal.words) is not None
    says_so = _SAYS_REVOKED.search(refusal.words) is not None and not says_used
    early = Evidence("the API rejected the access token before its end")
    return (66 if says_so else 35 if refusal.was_early else 30), _cause(
        "withdrawn",
        "Access was withdrawn at Ignition: by the customer, by an admin there, or since the user "
        "who had approved it is gone.",
        "Ask the customer whether they disconnected the app; then connect the tenant again.",
        *((Evidence("Ignition's words speak of a revocation"),) if says_so else ()),
        *((early,) if refusal.was_early else ()),
    )


WEIGHED: Final = (_restored, _lost_answer, _lapsed, _other_tenant, _second_party, _withdrawn)
