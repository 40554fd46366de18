"""The settings of single sign-on: all of them or none."""

from __future__ import annotations

import pytest

from ignition_broker.settings import SettingsError

ISSUER = "https://login.example.com/realms/staff/"
COMPLETE = {
    "BROKER_OIDC_ISSUER": ISSUER,
    "BROKER_OIDC_CLIENT_ID": "broker",
    "BROKER_OIDC_CLIENT_SECRET": "s",
    "BROKER_OIDC_ADMIN_GROUPS": " broker-admins,, on call ,",
}


def test_without_an_issuer_nothing_of_it_is_needed(load):
    assert load().broker_oidc_issuer is None
    assert load().admin_groups == ()


def test_the_issuer_is_kept_to_the_letter_and_groups_may_hold_spaces(load):
    settings = load(**COMPLETE)
    assert settings.broker_oidc_issuer == ISSUER
    assert settings.admin_groups == ("broker-admins", "on call")


def test_with_an_issuer_each_of_the_others_that_is_missing_has_a_line(load):
    with pytest.raises(SettingsError) as told:
        load(BROKER_OIDC_ISSUER=ISSUER, BROKER_OIDC_ADMIN_GROUPS=" , ")
    needed = ["BROKER_OIDC_CLIENT_ID", "BROKER_OIDC_CLIENT_SECRET", "BROKER_OIDC_ADMIN_GROUPS"]
    assert [line.partition(":")[0] for line in told.value.lines] == needed
    for line in told.value.lines:
        assert "is missing, and needed beside BROKER_OIDC_ISSUER; example: BROKER_OIDC_" in line


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("BROKER_OIDC_ISSUER", "login.example.com", "absolute"),
        ("BROKER_OIDC_ISSUER", "http://login.example.com", "https"),
        ("BROKER_OIDC_ISSUER", "https://login.example.com/?x=y", "query"),
        ("BROKER_OIDC_SCOPES", "email openid2", "openid"),
    ],
)
def test_a_malformed_one_has_a_line_of_its_own(load, name, value, told):
    with pytest.raises(SettingsError) as error:
        load(**{**COMPLETE, name: value})
    (line,) = error.value.lines
    assert line.startswith(f"{name}: ")
    assert told in line


def test_an_empty_secret_file_is_an_unset_secret(load, monkeypatch, tmp_path):
    """As `make secrets` writes it where single sign-on is not used."""
    (tmp_path / "broker_oidc_client_secret").write_text("")
    monkeypatch.setenv("BROKER_SECRETS_DIR", str(tmp_path))
    load()
    without = {n: v for n, v in COMPLETE.items() if n != "BROKER_OIDC_CLIENT_SECRET"}
    with pytest.raises(SettingsError, match="BROKER_OIDC_CLIENT_SECRET: is missing"):
        load(**without)
    (tmp_path / "broker_oidc_client_secret").write_text("from-the-file\n")
    secret = load(**without).broker_oidc_client_secret
    assert secret is not None
    assert secret.get_secret_value() == "from-the-file"
