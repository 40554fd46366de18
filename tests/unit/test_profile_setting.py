"""`IGNITION_PROFILE`: one word for an Ignition's addresses and ways, each of which can be set."""

from __future__ import annotations

import pytest

from ignition_broker.settings import Settings, SettingsError

SERVER = "https://developers.ignitionapp.com"


def addresses(settings: Settings) -> tuple[str, str, str | None, str]:
    return (
        settings.ignition_authorize_url,
        settings.ignition_token_url,
        settings.ignition_revoke_url,
        settings.ignition_api_url,
    )


def test_without_a_profile_the_guides_addresses_are_used_and_named_as_placeholders(load):
    for settings in (load(), load(IGNITION_PROFILE="guide")):
        assert addresses(settings) == (
            "https://ignition.com/oauth/authorize",
            "https://ignition.com/oauth/token",
            None,
            "https://api.ignition.com",
        )
        assert (settings.ignition_scopes, settings.ignition_client_auth) == (
            "",
            "client_secret_post",
        )
        assert settings.placeholders == [
            "IGNITION_AUTHORIZE_URL",
            "IGNITION_TOKEN_URL",
            "IGNITION_API_URL",
        ]


@pytest.mark.parametrize("profile", ["ignitionapp", '"ignitionapp"', " ignitionapp\n"])
def test_the_public_api_is_reached_by_one_word(load, profile):
    settings = load(IGNITION_PROFILE=profile)
    assert addresses(settings) == (
        f"{SERVER}/oauth2/authorize",
        f"{SERVER}/oauth2/token",
        f"{SERVER}/oauth2/revoke",
        f"{SERVER}/external/api/v1",
    )
    assert settings.ignition_scopes == "reporting"
    assert settings.ignition_client_auth == "client_secret_post"
    assert settings.placeholders == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IGNITION_AUTHORIZE_URL", "https://sandbox.example.com/authorize"),
        ("IGNITION_TOKEN_URL", "https://sandbox.example.com/token"),
        ("IGNITION_REVOKE_URL", "https://sandbox.example.com/revoke"),
        ("IGNITION_API_URL", "https://sandbox.example.com/api"),
        ("IGNITION_SCOPES", "reporting other"),
        ("IGNITION_CLIENT_AUTH", "client_secret_basic"),
    ],
)
@pytest.mark.parametrize("place", ["environment", ".env", "folder"])
def test_what_is_set_alone_comes_before_the_profile(
    load, tmp_path, monkeypatch, name, value, place
):
    alone = {}
    if place == "environment":
        alone = {name: value}
    elif place == ".env":
        (tmp_path / ".env").write_text(f"{name}={value}\n")
    else:
        (tmp_path / "secrets").mkdir()
        (tmp_path / "secrets" / name.lower()).write_text(value + "\n")
        alone = {"BROKER_SECRETS_DIR": str(tmp_path / "secrets")}
    profile = load(IGNITION_PROFILE="ignitionapp", **alone).model_dump()
    for each in alone:
        monkeypatch.delenv(each)
    (tmp_path / ".env").unlink(missing_ok=True)
    expected = load().model_dump() | {name.lower(): value}
    assert profile == expected


def test_the_profile_itself_may_be_in_a_file(load, tmp_path):
    (tmp_path / ".env").write_text("IGNITION_PROFILE=ignitionapp\nIGNITION_SCOPES=\n")
    assert load().ignition_scopes == "reporting"


@pytest.mark.parametrize("profile", ["IgnitionApp", "sandbox", "ignition app"])
def test_an_unknown_profile_is_refused_with_an_example(load, profile):
    with pytest.raises(SettingsError) as told:
        load(IGNITION_PROFILE=profile)
    (line,) = told.value.lines
    assert line.startswith("IGNITION_PROFILE: ")
    assert line.endswith("example: IGNITION_PROFILE=ignitionapp")
    assert profile not in line


def test_an_address_that_is_left_at_the_guides_host_is_named(load):
    settings = load(
        IGNITION_AUTHORIZE_URL="https://id.example.com/authorize",
        IGNITION_TOKEN_URL="https://id.example.com/token",
        IGNITION_API_URL="https://api.ignition.com/v2",
    )
    assert settings.placeholders == ["IGNITION_API_URL"]
