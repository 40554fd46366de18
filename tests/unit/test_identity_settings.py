"""The settings of the identity probe, of the plain client and of others."""

from __future__ import annotations

import json

import pytest

from ignition_broker.broker.grants.identity_probe import IdentityQuestion
from ignition_broker.settings import SettingsError
from ignition_broker.wiring_clients import identity_question

URL = "https://api.test/me"
ASKED = {
    "IGNITION_IDENTITY_URL": URL,
    "IGNITION_IDENTITY_ID": "/data/0/id",
    "IGNITION_IDENTITY_NAME": "/data/0/a~1b",
}


@pytest.fixture
def questions(load, tmp_path):
    """What each client asks, with one more client that is given so."""

    def asked(given: dict | None = None, **settings: str):
        (tmp_path / "secret").write_text("s")
        client = {"id": "box", "secret_file": str(tmp_path / "secret"), **(given or {})}
        loaded = load(IGNITION_CLIENTS=json.dumps({"sandbox": client}), **settings)
        found = loaded.oauth_clients
        return identity_question(found["default"]), identity_question(found["sandbox"])

    return asked


DEFAULT = IdentityQuestion(URL, ("data", "0", "id"), ("data", "0", "a/b"))
SANDBOX = {
    "authorize_url": "https://sandbox.test/authorize",
    "token_url": "https://sandbox.test/token",
    "api_url": "https://sandbox.test/api",
}


def test_nothing_is_asked_where_nothing_is_set(questions):
    assert questions() == (None, None)


def test_a_second_registration_at_the_same_ignition_asks_the_same(questions):
    assert questions(**ASKED) == (DEFAULT, DEFAULT)


def test_no_token_of_a_sandbox_goes_to_the_address_of_production(questions):
    assert questions(SANDBOX, **ASKED) == (DEFAULT, None)
    assert questions({"profile": "ignitionapp"}, **ASKED) == (DEFAULT, None)


def test_a_client_may_ask_in_its_own_way(questions):
    own = {"identity_url": "https://sandbox.test/me", "identity_id": "/id"}
    question = IdentityQuestion("https://sandbox.test/me", ("id",), None)
    assert questions({**SANDBOX, **own}) == (None, question)
    assert questions(own, **ASKED) == (DEFAULT, question)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"IGNITION_IDENTITY_URL": URL},
            "IGNITION_IDENTITY_ID: is missing, and needed beside IGNITION_IDENTITY_URL; "
            "example: IGNITION_IDENTITY_ID=/",
        ),
        (
            {"IGNITION_IDENTITY_ID": "/id"},
            "IGNITION_IDENTITY_ID: leads nowhere without IGNITION_IDENTITY_URL",
        ),
        (
            {"IGNITION_IDENTITY_NAME": "/id"},
            "IGNITION_IDENTITY_NAME: leads nowhere without IGNITION_IDENTITY_URL",
        ),
        ({**ASKED, "IGNITION_IDENTITY_ID": "id"}, "IGNITION_IDENTITY_ID: must be a JSON pointer"),
        ({**ASKED, "IGNITION_IDENTITY_NAME": "/~2"}, "~ is written ~0"),
        ({**ASKED, "IGNITION_IDENTITY_URL": "http://api.test/me"}, "must be https"),
    ],
)
def test_what_is_wrong_has_one_line_with_its_mend(load, settings, told):
    with pytest.raises(SettingsError) as caught:
        load(**settings)
    (line,) = caught.value.lines
    assert told in line


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"identity_url": URL}, "sandbox.identity_id: is missing beside"),
        ({"identity_id": "/id"}, "sandbox.identity_url: is missing beside"),
        ({"identity_url": URL, "identity_id": "id"}, "sandbox.identity_id: must be a JSON pointer"),
    ],
)
def test_what_is_wrong_with_a_clients_has_its_name(questions, given, told):
    with pytest.raises(SettingsError) as caught:
        questions(given)
    (line,) = caught.value.lines
    assert told in line
