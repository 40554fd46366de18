"""A token request goes on for at least as long as its callers wait."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from ignition_broker.settings import Settings, SettingsError, load_settings


@pytest.fixture
def environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IGNITION_CLIENT_ID", "client")
    monkeypatch.setenv("IGNITION_CLIENT_SECRET", "the secret of Ignition")
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/broker")
    monkeypatch.setenv("BROKER_ENCRYPTION_KEYS", Fernet.generate_key().decode())
    return monkeypatch


def test_less_patience_than_callers_have_is_refused_by_name(environment):
    environment.setenv("BROKER_PROVIDER_TIMEOUT", "20")
    environment.setenv("BROKER_PROVIDER_PATIENCE", "19.9")
    with pytest.raises(SettingsError) as refused:
        load_settings(Settings)
    (line,) = refused.value.lines
    assert line.startswith("BROKER_PROVIDER_PATIENCE: must be at least BROKER_PROVIDER_TIMEOUT")
    assert line.endswith("example: BROKER_PROVIDER_PATIENCE=120")


@pytest.mark.parametrize(("timeout", "patience"), [("10", 120), ("200", 200)])
def test_unset_it_is_no_less_than_the_timeout(environment, timeout, patience):
    environment.setenv("BROKER_PROVIDER_TIMEOUT", timeout)
    assert load_settings(Settings).provider_patience == patience
