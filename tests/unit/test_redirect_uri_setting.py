"""`REDIRECT_URI` must be exactly the address of the callback route."""

from __future__ import annotations

import pytest

from ignition_broker.settings import DatabaseSettings, SettingsError, load_settings


@pytest.fixture
def load(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", "postgresql://u@localhost/d")

    def loaded(redirect_uri: str) -> DatabaseSettings:
        monkeypatch.setenv("REDIRECT_URI", redirect_uri)
        return load_settings(DatabaseSettings)

    return loaded


@pytest.mark.parametrize(
    "good",
    [
        "https://broker.example.com/callback",
        "HTTPS://broker.example.com:8443/callback",
        "http://localhost:3000/callback",
        "http://[::1]:3000/callback",
    ],
)
def test_the_route_of_the_callback_is_taken(load, good):
    assert load(good).redirect_uri == good


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/callback/",
        "//callback",
        "/Callback",
        "/oauth/callback",
        "/callback?",
        "/callback?a=b",
        "/callback?x=/callback",
        "/callback#",
        "/callback#/callback",
        "/callback;x",
        "/call%62ack",
        "/a/../callback",
        "/callback%20",
        "/call\tback",
    ],
)
def test_any_other_path_is_refused_by_name_and_with_an_example(load, path):
    with pytest.raises(SettingsError) as refused:
        load(f"https://broker.example.com{path}")
    (line,) = refused.value.lines
    assert line.startswith("REDIRECT_URI: ")
    assert line.endswith("example: REDIRECT_URI=https://broker.example.com/callback")
