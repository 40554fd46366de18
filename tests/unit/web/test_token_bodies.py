"""What a token's JSON says of its end, and how long a rendered one is used."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.unit.values import NOW, ManualClock, make_token

from ignition_broker.oauth.tokens import ASSUMED_LIFETIME_SECONDS, ENDLESS_LIFETIME_SECONDS
from ignition_broker.web.token_bodies import MOST_RENDERED, TokenBodies


def test_a_body_is_rendered_again_when_a_second_has_passed():
    clock = ManualClock()
    bodies, token = TokenBodies(clock), make_token()
    first = bodies.of(token)
    assert bodies.of(token) is first
    clock.at += 1
    assert json.loads(bodies.of(token))["expires_in"] == 99


def test_a_new_token_of_the_tenant_is_rendered_at_once():
    bodies = TokenBodies(ManualClock())
    bodies.of(make_token(version=1))
    assert json.loads(bodies.of(make_token(version=2)))["access_token"] == "acme-2"


def test_a_token_that_has_ended_has_no_seconds_left():
    clock = ManualClock(NOW + 200)
    assert json.loads(TokenBodies(clock).of(make_token()))["expires_in"] == 0


def test_a_token_without_a_known_end_is_to_be_asked_for_again_after_a_while():
    token = replace(make_token(), lifetime_seconds=ENDLESS_LIFETIME_SECONDS, dies_at=NOW + 1e9)
    body = json.loads(TokenBodies(ManualClock()).of(token))
    assert body["expires_in"] == ASSUMED_LIFETIME_SECONDS


def test_the_memory_is_bounded():
    bodies = TokenBodies(ManualClock())
    for number in range(MOST_RENDERED + 1):
        bodies.of(make_token(tenant=f"t{number}"))
    assert len(bodies._rendered) == MOST_RENDERED
