"""What is concluded from a row and the audit trail, where the evidence fits several causes too."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ignition_broker.broker.explanations.explain import explanation
from ignition_broker.model import AuditEvent, RecordedEvent
from ignition_broker.storage.grant_facts import GrantFacts, OtherTenant

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

CONNECTED = GrantFacts(
    now=NOW,
    status="connected",
    connected_at=NOW - 30 * DAY,
    refreshed_at=NOW - HOUR / 2,
    next_refresh_at=NOW + HOUR / 4,
    expires_at=NOW + HOUR / 2,
    renewable=True,
)
REFUSED = replace(
    CONNECTED, status="reauthorization_required", next_refresh_at=None, renewable=True
)


def event(
    number: int, action: str, outcome: str, ago: timedelta, actor: str = "broker", **detail: object
) -> RecordedEvent:
    return RecordedEvent(
        number, NOW - ago, AuditEvent(action, outcome, actor, "acme", detail=detail)
    )


def refusal(words: str = "", *, ago: timedelta = HOUR / 4, actor: str = "broker", **detail: object):
    return event(900, "refresh", "refused", ago, actor, reason=words, **detail)


RENEWED = event(100, "refresh", "renewed", HOUR)
LOST = event(500, "refresh", "answer_lost", HOUR / 2)


def judged(facts: GrantFacts, *events: RecordedEvent, is_readable: bool = True):
    newest_first = sorted(events, key=lambda each: -each.id)
    return explanation("acme", facts, newest_first, is_readable=is_readable)


def first(facts: GrantFacts, *events: RecordedEvent, **more: bool) -> tuple[str, str]:
    cause = judged(facts, *events, **more).causes[0]
    return cause.code, str(cause.confidence)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("", "withdrawn"),
        ("Token has been revoked.", "withdrawn"),
        ("consent withdrawn by user", "withdrawn"),
        ("refresh token reuse detected", "used_by_another_party"),
        ("The refresh token was used before.", "used_by_another_party"),
        ("Token has been expired or revoked.", "refresh_token_lapsed"),
    ],
)
def test_words_alone_decide_the_order_and_are_never_sure(words, code):
    found = judged(REFUSED, RENEWED, refusal(words))
    assert found.causes[0].code == code
    assert {str(cause.confidence) for cause in found.causes} == {"possible"}
    assert found.tells_apart


def test_a_lost_answer_outweighs_any_words():
    for words in ("", "revoked", "reuse detected"):
        assert first(REFUSED, RENEWED, LOST, refusal(words)) == ("lost_answer", "likely")
    by_the_lease = refusal("revoked", after_lost_answer=True)
    assert first(REFUSED, RENEWED, by_the_lease) == ("lost_answer", "likely")


def test_an_answer_that_was_lost_before_the_last_renewal_explains_nothing():
    before = event(50, "refresh", "answer_lost", 2 * HOUR)
    codes = [cause.code for cause in judged(REFUSED, before, RENEWED, refusal()).causes]
    assert "lost_answer" not in codes


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (1, None),
        (30, "possible"),
        (91, "likely"),
    ],
)
def test_idle_days(days, expected):
    facts = replace(REFUSED, refreshed_at=NOW - days * DAY, expires_at=NOW - days * DAY + HOUR)
    found = first(facts, event(1, "refresh", "renewed", days * DAY), refusal())
    if expected is None:
        assert found[0] != "refresh_token_lapsed"
    else:
        assert found == ("refresh_token_lapsed", expected)


def test_an_end_that_ignition_had_told_is_believed():
    facts = replace(REFUSED, refresh_token_expires_at=NOW - HOUR / 3)
    assert first(facts, RENEWED, refusal("revoked")) == ("refresh_token_lapsed", "likely")


def test_a_database_that_went_back_outweighs_a_second_use():
    behind = event(600, "database_went_back", "behind", HOUR / 3)
    found = first(REFUSED, RENEWED, behind, refusal("the token was used before"))
    assert found == ("database_restored", "likely")


def test_a_second_use_long_after_the_tokens_end_may_be_a_restored_backup():
    facts = replace(REFUSED, expires_at=NOW - 2 * DAY)
    causes = judged(facts, RENEWED, refusal("the token was used before")).causes
    assert [cause.code for cause in causes[:2]] == ["used_by_another_party", "database_restored"]


def test_another_tenant_on_the_account_counts_only_between_renewal_and_refusal():
    def with_other(ago: timedelta) -> GrantFacts:
        return replace(REFUSED, others=(OtherTenant("twin", NOW - ago),))

    assert first(with_other(HOUR / 2), RENEWED, refusal()) == ("other_tenant_connected", "likely")
    assert first(with_other(3 * HOUR), RENEWED, refusal())[0] == "withdrawn"


def test_a_refusal_whose_event_is_too_old_to_be_found_is_told_by_the_row():
    found = judged(replace(REFUSED, last_error="The grant was revoked."))
    assert found.causes[0].code == "withdrawn"
    assert "The grant was revoked." in found.causes[0].evidence[0].what


def test_the_end_of_an_unrenewable_grant_is_certain():
    ended = event(950, "grant_end", "ended", HOUR)
    assert first(REFUSED, ended) == ("ended_without_refresh_token", "certain")


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("misconfigured", "client_rejected"),
        ("rejected", "request_rejected"),
        ("not_sent", "provider_unreachable"),
        ("throttled", "provider_busy"),
        ("answer_lost", "answer_outstanding"),
        ("no_access_token", "no_access_token"),
    ],
)
def test_the_last_refresh_says_what_is_wrong_now(outcome, code):
    failing = replace(CONNECTED, failures=3, is_uncertain=outcome == "answer_lost")
    found = judged(failing, RENEWED, event(200, "refresh", outcome, HOUR / 5, error="why"))
    assert (found.causes[0].code, str(found.causes[0].confidence)) == (code, "certain")
    assert "why, 3 times in a row" in found.causes[0].evidence[0].what


def test_a_trouble_that_is_over_is_not_told():
    assert first(CONNECTED, event(50, "refresh", "not_sent", 2 * HOUR), RENEWED)[0] == "connected"


def test_keys_and_moved_rows():
    assert first(CONNECTED, RENEWED, is_readable=False) == ("key_missing", "certain")
    moved = event(300, "decrypt", "misplaced", HOUR)
    found = first(CONNECTED, RENEWED, moved, is_readable=False)
    assert found == ("ciphertext_misplaced", "certain")


def test_a_grant_that_is_due_and_not_renewed():
    late = replace(CONNECTED, next_refresh_at=NOW - HOUR)
    assert first(late, RENEWED) == ("renewal_overdue", "likely")


def test_without_a_grant():
    never = GrantFacts(now=NOW, status=None)
    assert first(never) == ("never_connected", "certain")
    failed = event(5, "connect", "failed", HOUR, error="access_denied")
    found = judged(never, failed).causes[0]
    assert "the last try failed" in found.text
    assert "access_denied" in found.evidence[0].what
    gone = replace(never, status="disconnected", connected_at=NOW - DAY)
    found = judged(gone, event(9, "disconnect", "done", HOUR, "jane")).causes[0]
    assert found.code == "disconnected"
    assert found.text.startswith("jane")


def test_a_held_account_is_told_besides():
    held = replace(CONNECTED, held_account="practice_2")
    found = judged(held, RENEWED, event(700, "connect", "account_mismatch", HOUR / 2))
    assert [cause.code for cause in found.causes] == ["connected", "account_held"]
