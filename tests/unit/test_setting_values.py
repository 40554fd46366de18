"""Settings as files, shells and clipboards write them: cleaned up, or refused by name."""

from __future__ import annotations

import codecs
import os
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from ignition_broker.settings import Settings, SettingsError, load_settings

# Fixed, since the tests are named after them.
FIRST, SECOND = (urlsafe_b64encode(bytes([byte]) * 32).decode() for byte in (1, 2))
NEEDED = {
    "IGNITION_CLIENT_ID": "client-7f3a",
    "IGNITION_CLIENT_SECRET": "the secret of Ignition",
    "DATABASE_URL": "postgresql://user:pass%20word@localhost:5432/broker",
    "BROKER_ENCRYPTION_KEYS": FIRST,
}
VALUES = {
    **NEEDED,
    "REDIRECT_URI": "https://broker.example.com/callback",
    "IGNITION_AUTHORIZE_URL": "https://i.example.com/authorize",
    "IGNITION_TOKEN_URL": "https://i.example.com/token?a=b",
    "IGNITION_REVOKE_URL": "https://i.example.com/revoke",
    "IGNITION_API_URL": "https://api.example.com/v1",
    "IGNITION_ISSUER": "https://i.example.com",
    "IGNITION_SCOPES": "read write",
    "IGNITION_CLIENT_AUTH": "client_secret_basic",
    "IGNITION_TOKEN_FORMAT": "json",
    "IGNITION_REFUSAL_CODES": "bad_refresh_token spent",
    "BROKER_ADMIN_KEY": "an-admin-key-of-more-than-32-characters",
    "BROKER_JWT_ISSUERS": '[{"issuer": "https://issuer.example.com", "audience": "broker", '
    '"rules": [{"match": {"sub": "x"}, "scopes": ["token"], "tenants": ["acme"]}]}]',
    "BROKER_TRUSTED_PROXIES": "10.0.0.0/8,192.0.2.7",
    "BROKER_OIDC_ISSUER": "https://login.example.com",
    "BROKER_OIDC_CLIENT_ID": "sso-9c2e",
    "BROKER_OIDC_CLIENT_SECRET": "the secret of the identity provider",
    "BROKER_OIDC_ADMIN_GROUPS": "operators,on call",
    "BROKER_OIDC_GROUPS_CLAIM": "roles",
    "BROKER_OIDC_SCOPES": "openid groups",
    "BROKER_HOST": "0.0.0.0",
    "BROKER_PORT": "3005",
    "BROKER_OPERATIONS_HOST": "127.0.0.2",
    "BROKER_OPERATIONS_PORT": "3006",
    "BROKER_REFRESH_LEAD": "200.5",
    "BROKER_PROXY_HTTP2": "true",
    "BROKER_LOG_LEVEL": "DEBUG",
    "BROKER_LOG_FORMAT": "json",
}
# Settings that were added later take part with their defaults.
ALL = {
    **{
        name.upper(): str(field.default)
        for name, field in Settings.model_fields.items()
        if not field.is_required() and field.default not in (None, "")
    },
    **VALUES,
}
SECRETS = [
    "IGNITION_CLIENT_ID",
    "IGNITION_CLIENT_SECRET",
    "BROKER_ADMIN_KEY",
    "BROKER_OIDC_CLIENT_ID",
    "BROKER_OIDC_CLIENT_SECRET",
]
MAY_HOLD_QUOTES = [*SECRETS, "BROKER_OIDC_ADMIN_GROUPS", "BROKER_OIDC_GROUPS_CLAIM"]
URLS = [name for name in VALUES if VALUES[name].startswith(("https://", "postgresql://"))]

DECORATIONS = {
    "a newline": "{}\n",
    "a Windows newline": "{}\r\n",
    "blanks": "  {} \t ",
    "newlines before and behind": "\n\n{}\n\n",
    "a byte order mark": "\ufeff{}",
    "a mark and a newline": "\ufeff{}\r\n",
    "a zero-width blank": "{}\u200b",
    "a hard blank": "\xa0{}\xa0",
}


@pytest.fixture
def place(monkeypatch, tmp_path):
    """Puts settings where they may lie, exactly as given, and loads them."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("BROKER_", "IGNITION_", "DATABASE_URL", "REDIRECT_URI")):
            monkeypatch.delenv(name)
    folder = tmp_path / "secrets"

    def placed(source: str, settings: dict[str, str], *, mark: bytes = b"") -> Settings:
        if source == "environment":
            for name, value in settings.items():
                monkeypatch.setenv(name, value)
        elif source == ".env":
            Path(".env").write_bytes(mark + as_env_file(settings).encode())
        else:
            folder.mkdir(exist_ok=True)
            for name, value in settings.items():
                (folder / name.lower()).write_bytes(value.encode())
            monkeypatch.setenv("BROKER_SECRETS_DIR", f"{folder}\n")
        return load_settings(Settings)

    return placed


def as_env_file(settings: dict[str, str]) -> str:
    def quoted(value: str) -> str:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r") + '"'

    return "".join(f"{name}={quoted(value)}\n" for name, value in settings.items())


def shown(settings: Settings) -> dict[str, object]:
    values = ((name, getattr(settings, name)) for name in Settings.model_fields)
    return {
        name: value.get_secret_value() if hasattr(value, "get_secret_value") else value
        for name, value in values
    }


@pytest.fixture
def meant(place, monkeypatch):
    settings = shown(place("environment", ALL))
    for name in ALL:
        monkeypatch.delenv(name)
    return settings


SOURCES = ["environment", ".env", "folder"]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("decoration", DECORATIONS.values(), ids=DECORATIONS)
def test_what_is_around_a_value_by_accident_is_no_part_of_it(place, meant, source, decoration):
    settings = place(source, {name: decoration.format(value) for name, value in ALL.items()})
    assert shown(settings) == meant
    assert meant["ignition_client_secret"] == VALUES["IGNITION_CLIENT_SECRET"]
    assert settings.secrets()
    assert not any(each != each.strip() for each in settings.secrets())


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotes_around_a_value_that_can_have_none_are_left_out(place, meant, source, quote):
    given = {
        name: value if name in MAY_HOLD_QUOTES or quote in value else f"{quote}{value}{quote}\n"
        for name, value in ALL.items()
    }
    assert shown(place(source, given)) == meant


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotes_that_may_be_meant_are_refused_by_name(place, source, quote):
    given = {name: f"{quote}{ALL[name]}{quote}\n" for name in MAY_HOLD_QUOTES}
    refused = refusal(place, source, {**ALL, **given})
    assert set(refused) == set(MAY_HOLD_QUOTES)
    for name, line in refused.items():
        assert "is in quotes; leave them out" in line
        assert ALL[name] not in line


@pytest.mark.parametrize("source", ["environment", "folder"])
@pytest.mark.parametrize("amid", ["\n", "\r\n", "\t", "\u200b", "\ufeff", "\xa0", "\x07"])
def test_invisible_characters_within_a_value_are_refused_by_name(place, source, amid):
    names = [*SECRETS, *URLS, "BROKER_HOST", "BROKER_OIDC_ADMIN_GROUPS"]
    refused = refusal(place, source, {**ALL, **{name: halved(name, amid) for name in names}})
    assert set(refused) == set(names)
    for name, line in refused.items():
        assert "must not hold a line break, a tab or an invisible character" in line
        assert ALL[name][: len(ALL[name]) // 2] not in line.partition("example")[0]


def halved(name: str, amid: str) -> str:
    half = len(ALL[name]) // 2
    return ALL[name][:half] + amid + ALL[name][half:]


def test_a_blank_amid_what_can_have_none_is_refused_by_name(place):
    names = [*URLS, "BROKER_ADMIN_KEY", "BROKER_HOST"]
    given = {**ALL, **{name: halved(name, " ") for name in names}}
    refused = refusal(place, "environment", given)
    assert set(refused) == set(names)
    assert all("must not hold a blank" in line for line in refused.values())


@pytest.mark.parametrize("amid", ['"', "<", ">", "\\", "{", "`"])
def test_a_character_that_no_url_has_is_refused_by_name(place, amid):
    names = [name for name in URLS if name not in {"DATABASE_URL", "IGNITION_ISSUER"}]
    refused = refusal(place, "environment", {**ALL, **{n: f"{ALL[n]}{amid}x" for n in names}})
    assert set(names) <= set(refused)
    assert all("no URL has" in refused[name] for name in names)


def refusal(place, source: str, given: dict[str, str]) -> dict[str, str]:
    with pytest.raises(SettingsError) as told:
        place(source, given)
    return {line.partition(":")[0]: line for line in told.value.lines}


def test_a_secret_may_hold_blanks_and_quotes_of_its_own(place):
    secret = "it's a \"secret\" with 'blanks"
    settings = place("environment", {**ALL, "IGNITION_CLIENT_SECRET": f"{secret}\n"})
    assert settings.ignition_client_secret.get_secret_value() == secret


@pytest.mark.parametrize(
    "keys",
    [
        f"{FIRST},{SECOND}",
        f" {FIRST} , {SECOND} ",
        f"{FIRST},{SECOND},",
        f",{FIRST},,{SECOND},\n",
        f"{FIRST}\n{SECOND}\n",
        f"\ufeff{FIRST},\r\n{SECOND}\r\n",
        f"{FIRST} {SECOND}",
    ],
)
def test_keys_are_listed_in_any_way(place, keys):
    settings = place("environment", {**ALL, "BROKER_ENCRYPTION_KEYS": keys})
    assert settings.broker_encryption_keys.get_secret_value() == f"{FIRST},{SECOND}"


@pytest.mark.parametrize(
    "keys",
    [
        FIRST[:-1],
        FIRST[:20] + "!" + FIRST[20:],
        f"{FIRST};{SECOND}",
        f"{FIRST},{SECOND[:20]}\u200b{SECOND[20:]}",
        f'"{FIRST}","{SECOND}"',
    ],
)
def test_keys_that_are_none_are_refused_though_the_library_would_take_some(place, keys):
    refused = refusal(place, "environment", {**ALL, "BROKER_ENCRYPTION_KEYS": keys})
    assert "must be Fernet keys, comma separated" in refused["BROKER_ENCRYPTION_KEYS"]


@pytest.mark.parametrize("source", SOURCES)
def test_a_value_of_blanks_alone_is_unset(place, source):
    optional = {name: " \r\n" for name in ALL if name not in NEEDED}
    settings = place(source, {**NEEDED, **optional})
    assert settings.broker_port == 3000
    assert settings.broker_admin_key is None
    assert settings.ignition_revoke_url is None
    refused = refusal(place, source, dict.fromkeys(NEEDED, "\n"))
    assert {name for name, line in refused.items() if "is missing" in line} == set(NEEDED)


def test_a_value_of_blanks_alone_hides_no_value_of_another_place(place):
    place("folder", {**ALL})
    settings = place("environment", {"IGNITION_CLIENT_SECRET": "\n"})
    assert settings.ignition_client_secret.get_secret_value() == ALL["IGNITION_CLIENT_SECRET"]


def test_an_env_file_of_windows_is_read(place, meant):
    lines = as_env_file(ALL).replace("\n", "\r\n")
    Path(".env").write_bytes(codecs.BOM_UTF8 + lines.encode())
    assert shown(load_settings(Settings)) == meant
    bare = "".join(f"{name} = {value} \r\n" for name, value in NEEDED.items())
    Path(".env").write_bytes(codecs.BOM_UTF8 + bare.encode())
    assert load_settings(Settings).ignition_client_id == NEEDED["IGNITION_CLIENT_ID"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "latin-1"])
def test_a_file_in_another_encoding_is_named(place, encoding, tmp_path):
    value = "a sécret of Ignition"
    place("folder", ALL)
    (tmp_path / "secrets" / "ignition_client_secret").write_bytes(value.encode(encoding))
    with pytest.raises(SettingsError) as told:
        load_settings(Settings)
    (line,) = told.value.lines
    assert line.startswith("IGNITION_CLIENT_SECRET: ")
    Path(".env").write_bytes("IGNITION_CLIENT_ID=é".encode(encoding))
    with pytest.raises(SettingsError) as told:
        load_settings(Settings)
    assert any(line.startswith(".env: its file must be UTF-8") for line in told.value.lines)


def test_bytes_in_the_environment_that_are_no_text_are_refused_by_name(place, monkeypatch):
    given = {**ALL, "IGNITION_CLIENT_SECRET": os.fsdecode(b"secr\xe9t")}
    assert "must be UTF-8 text" in refusal(place, "environment", given)["IGNITION_CLIENT_SECRET"]
    given = {**ALL, "IGNITION_CLIENT_SECRET": os.fsdecode(b"secret\xe9")}
    assert "must be UTF-8 text" in refusal(place, "environment", given)["IGNITION_CLIENT_SECRET"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_named(place, tmp_path):
    place("folder", ALL)
    (tmp_path / "secrets" / "ignition_client_secret").chmod(0)
    with pytest.raises(SettingsError, match="IGNITION_CLIENT_SECRET: its file can't be read"):
        load_settings(Settings)
