"""Fixtures that several unit tests share."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from ignition_broker.settings import Settings, load_settings


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Settings from the environment: the least that is needed, and what the test gives."""
    monkeypatch.chdir(tmp_path)
    base = {
        "IGNITION_CLIENT_ID": "c",
        "IGNITION_CLIENT_SECRET": "s",
        "DATABASE_URL": "postgresql://u@localhost/d",
        "BROKER_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
    }

    def loaded(**settings: str) -> Settings:
        for name, value in {**base, **settings}.items():
            monkeypatch.setenv(name, value)
        return load_settings(Settings)

    return loaded
