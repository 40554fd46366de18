"""Encrypted tokens on their way into a grant's row."""

from __future__ import annotations

import dataclasses

import pytest

from ignition_broker.storage.sealed_tokens import (
    Schedule,
    SealedTokens,
    first_due,
    left,
    sealed_parameters,
)

SEALED = SealedTokens(
    access_token=b"access-ciphertext",
    refresh_token=b"refresh-ciphertext",
    token_type="Bearer",
    scope="read",
    lifetime_seconds=600.0,
    key_fingerprint="0123456789ab",
    refresh_lifetime_seconds=86_400.0,
)


@pytest.mark.parametrize(("seconds", "remains"), [(100.0, 70.0), (20.0, 0.0), (None, None)])
def test_the_age_of_the_answer_is_taken_off_what_counts_from_the_request(seconds, remains):
    assert left(seconds, 30.0) == remains


def test_lifetimes_are_stored_from_the_request_on_and_the_note_is_the_ciphertexts_end():
    given = sealed_parameters("acme", SEALED, Schedule(300.0, 86_400.0), 30.0)
    assert (given["left"], given["renew_in"], given["refresh_left"]) == (570.0, 270.0, 86_370.0)
    assert given["fingerprinted"] == b"phertext"


def test_a_renewal_is_due_before_the_refresh_token_lapses():
    schedule = Schedule(300.0, 86_400.0, before_lapse_seconds=100.0)
    assert first_due(SEALED, schedule, 30.0) == {"empty_refresh_token": None, "renew_in": 70.0}


def test_without_a_refresh_token_nothing_is_due():
    sealed = dataclasses.replace(SEALED, has_refresh_token=False)
    given = first_due(sealed, Schedule(300.0, 86_400.0), 0.0)
    assert given == {"empty_refresh_token": b"phertext", "renew_in": None}
