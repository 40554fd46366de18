"""`IGNITION_CLIENTS`: further OAuth clients, and a line for each fault that tells no value."""

from __future__ import annotations

import json

import pytest

from ignition_broker.settings import SettingsError

SANDBOX = {
    "authorize_url": "https://sandbox.test/authorize",
    "token_url": "https://sandbox.test/token",
    "api_url": "https://sandbox.test/api",
}


@pytest.fixture
def secret(tmp_path):
    def kept(text: str = "the sandbox's secret\n", name: str = "secret") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return kept


@pytest.fixture
def clients(load, secret):
    def loaded(given: dict, **settings: str):
        text = json.dumps({"sandbox": {"id": "box", "secret_file": secret(), **given}})
        return load(IGNITION_CLIENTS=text, **settings).oauth_clients

    return loaded


@pytest.fixture
def refusal(load):
    def lines(text: str) -> list[str]:
        with pytest.raises(SettingsError) as caught:
            load(IGNITION_CLIENTS=text)
        assert all(line.startswith("IGNITION_CLIENTS: ") for line in caught.value.lines)
        return [line.removeprefix("IGNITION_CLIENTS: ") for line in caught.value.lines]

    return lines


def test_without_it_the_plain_settings_are_the_only_client(load):
    settings = load(IGNITION_CLIENT_SECRET_PREVIOUS="the one before", IGNITION_SCOPES="read")
    assert list(settings.oauth_clients) == ["default"]
    default = settings.oauth_clients["default"]
    assert (default.client_id, default.scopes) == ("c", "read")
    assert default.secret.get_secret_value() == "s"
    assert default.previous_secret.get_secret_value() == "the one before"


def test_a_second_registration_takes_over_what_it_does_not_give(clients):
    found = clients(
        {"scopes": "payroll"},
        IGNITION_PROFILE="ignitionapp",
        IGNITION_TOKEN_URL="https://gateway.test/token",
        IGNITION_CLIENT_AUTH="client_secret_basic",
        IGNITION_REFUSAL_CODES="bad_refresh_token",
    )
    default, sandbox = found["default"], found["sandbox"]
    assert list(found) == ["default", "sandbox"]
    assert (sandbox.client_id, sandbox.scopes) == ("box", "payroll")
    assert sandbox.secret.get_secret_value() == "the sandbox's secret"
    for name in ("authorize_url", "token_url", "revoke_url", "api_url", "client_auth"):
        assert getattr(sandbox, name) == getattr(default, name), name
    assert sandbox.refusal_codes == default.refusal_codes == {"badrefreshtoken"}


def test_a_client_of_another_ignition_takes_nothing_over(clients):
    found = clients(
        SANDBOX,
        IGNITION_REVOKE_URL="https://production.test/revoke",
        IGNITION_SCOPES="production",
        IGNITION_ISSUER="https://production.test",
    )["sandbox"]
    assert {name: getattr(found, name) for name in SANDBOX} == SANDBOX
    assert (found.revoke_url, found.issuer, found.scopes) == (None, None, "")
    assert found.token_format == "form"


def test_a_profile_sets_the_rest_and_an_address_of_its_own_comes_first(clients):
    found = clients(
        {"profile": "ignitionapp", "api_url": "https://gateway.test/api"},
        IGNITION_TOKEN_URL="https://production.test/token",
    )["sandbox"]
    assert found.token_url == "https://developers.ignitionapp.com/oauth2/token"
    assert (found.api_url, found.scopes) == ("https://gateway.test/api", "reporting")


def test_the_log_masks_every_secret(load, secret):
    given = {
        "id": "box",
        "secret_file": secret("newer-secret"),
        "previous_secret_file": secret("older-secret", "previous"),
    }
    settings = load(IGNITION_CLIENTS=json.dumps({"sandbox": given}))
    assert {"newer-secret", "older-secret", "s"} <= set(settings.secrets())


def test_each_fault_is_a_line_that_names_client_and_field_and_no_value(refusal, secret):
    text = json.dumps(
        {
            "one": {"id": "", "token_url": "http://hunter2.test", "client_auth": "hunter2"},
            "two": {"id": "x", "secret_file": "/nowhere/hunter2", "hunter2": 1},
            "three": {
                "id": "x",
                "secret_file": secret("", "empty"),
                "api_url": "https://hunter2.test",
            },
            "four": {"id": "x", "secret_file": secret('"quoted"', "quoted")},
            "five": ["hunter2"],
            "default": {"id": "x", "secret_file": secret()},
            "Hunter2": {},
        }
    )
    lines = refusal(text)
    assert not [line for line in lines if "hunter2" in line.lower()]
    faults = [line.partition(";")[0].partition(",")[0] for line in lines]
    assert faults == [
        "one.id: String should have at least 1 character",
        "one.secret_file: is missing",
        "one.token_url: must be https",
        "one.client_auth: Input should be 'client_secret_post' or 'client_secret_basic'",
        "two.secret_file: its file can't be read (No such file or directory)",
        "two: has an unknown field",
        "three.secret_file: its file is empty",
        "four.secret_file: is in quotes",
        "five: must be an object",
        "default: is the client of the plain settings",
        "a client's name must have 1 to 32 of a-z",
    ]
    assert all("example: " in line for line in lines if not line.startswith("default"))


def test_an_address_alone_is_not_enough(refusal, secret):
    given = {"id": "x", "secret_file": secret(), "token_url": "https://sandbox.test/token"}
    missing = "is missing beside another address of this client"
    assert [line.partition(";")[0] for line in refusal(json.dumps({"sandbox": given}))] == [
        f"sandbox.authorize_url: {missing}",
        f"sandbox.api_url: {missing}",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "must be JSON"),
        ("[" * 100_000, "must be JSON"),
        ("[]", "must be an object of clients by name"),
        ('{"a": {}, "a": {}}', "names a client or a field twice"),
    ],
)
def test_what_is_no_object_of_clients_is_one_line(refusal, text, fault):
    (line,) = refusal(text)
    assert line.startswith(fault)
    assert 'example: {"sandbox": ' in line
