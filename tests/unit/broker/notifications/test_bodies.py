from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from ignition_broker.broker.notifications.bodies import (
    EVENT_TYPES,
    body_of,
    sentence_of,
)
from ignition_broker.broker.notifications.delivery import BACK_OFF_SECONDS, wait_seconds
from ignition_broker.broker.notifications.messages import (
    LONGEST_SUBJECT,
    MOST_LISTED,
    lines_of,
    subject_of,
)
from ignition_broker.broker.notifications.signing import is_secret, new_secret, signed_headers
from ignition_broker.storage.deliveries import TRIED_FOR_SECONDS
from ignition_broker.storage.outbox import OutboxEvent

AT = datetime(2026, 11, 26, 8, 30, tzinfo=UTC)


def event(kind: str = "tenant.connected", tenant: str | None = "acme", **more) -> OutboxEvent:
    fields = {"client": None, "status": "connected", "reason": None, "ends_at": None, **more}
    return OutboxEvent(name="evt_1", at=AT, type=kind, grant=tenant, **fields)


def test_the_body_has_what_the_contract_names_and_no_more():
    ends = AT.astimezone(timezone(timedelta(hours=2)))
    told = event("tenant.ending_soon", "acme@sandbox", reason="it ends", ends_at=ends)
    assert json.loads(body_of(told)) == {
        "type": "tenant.ending_soon",
        "timestamp": "2026-11-26T08:30:00Z",
        "data": {
            "tenant": "acme",
            "client": "sandbox",
            "status": "connected",
            "reason": "it ends",
            "ends_at": "2026-11-26T08:30:00Z",
        },
    }
    away = event("provider.unavailable", None, client="default", status="unavailable")
    assert json.loads(body_of(away))["data"] == {
        "tenant": None,
        "client": "default",
        "status": "unavailable",
    }


def test_a_signature_holds_for_either_secret_and_no_other():
    now = datetime.now(UTC)
    old, new, other = new_secret(), new_secret(), new_secret()
    body = body_of(event())
    headers = signed_headers((new, old), "evt_1", now, body)
    for secret in (old, new):
        assert Webhook(secret).verify(body, headers)["type"] == "tenant.connected"
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(body.replace("acme", "beta"), headers)


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_abc", "whsec_!!!!", "abc", "whsec_" + "A" * 200]
)
def test_what_is_no_secret_is_told(text):
    assert not is_secret(text)
    assert is_secret(new_secret())


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_every_type_has_a_sentence_on_one_line(kind):
    told = event(kind, reason="two\r\nlines", ends_at=AT)
    assert "\n" not in sentence_of(told)
    assert "\r" not in subject_of([told])
    assert "two lines" in sentence_of(told)


def test_a_digest_counts_what_it_can_not_list_with_the_urgent_first():
    ended = [event("tenant.reauthorization_required", f"t{n}") for n in range(500)]
    events = [event("tenant.connected"), *ended, event("provider.unavailable", None)]
    subject = subject_of(events)
    assert subject == (
        "Ignition is not available, 500 tenants to connect again, 1 tenant connected"
    )
    lines = lines_of(events, "https://broker.example.com/")
    assert len(lines) < MOST_LISTED + 10
    assert f"… and {502 - MOST_LISTED} more" in lines
    assert lines[-1] == "https://broker.example.com/"


def test_a_subject_is_never_long():
    assert len(subject_of([event(reason="x" * 1000)])) == LONGEST_SUBJECT


def test_the_back_off_grows_over_the_three_days():
    waits = [wait_seconds(tries, None) for tries in range(1, 30)]
    steps = zip(BACK_OFF_SECONDS, waits, strict=False)
    assert all(0.8 * step <= wait <= 1.2 * step for step, wait in steps)
    tries, total = 0, 0.0
    while total < TRIED_FOR_SECONDS:
        tries += 1
        total += BACK_OFF_SECONDS[min(tries, len(BACK_OFF_SECONDS)) - 1]
    assert 12 < tries < 20


def test_a_receiver_is_given_the_time_that_it_asks_for_within_an_hour():
    assert wait_seconds(1, 100.0) == 100.0
    assert wait_seconds(1, 1e9) == 3600.0
