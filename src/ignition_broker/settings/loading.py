"""Reads the settings, and says in one line each what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from ignition_broker.settings.client_faults import ClientFaults
from ignition_broker.settings.database import DatabaseSettings
from ignition_broker.settings.normalization import trimmed, unquoted, unreadable

EXAMPLES = {
    "IGNITION_CLIENT_ID": "IGNITION_CLIENT_ID=my-client",
    "IGNITION_CLIENT_SECRET": "IGNITION_CLIENT_SECRET=the-secret-from-ignition",
    "IGNITION_CLIENT_SECRET_PREVIOUS": "IGNITION_CLIENT_SECRET_PREVIOUS=the-secret-before-it",
    "IGNITION_PROFILE": "IGNITION_PROFILE=ignitionapp",
    "REDIRECT_URI": "REDIRECT_URI=https://broker.example.com/callback",
    "DATABASE_URL": "DATABASE_URL=postgresql+asyncpg://user:password@db.example.com:5432/broker",
    "BROKER_ENCRYPTION_KEYS": "BROKER_ENCRYPTION_KEYS=$(ignition-broker keys generate)",
    "BROKER_ADMIN_KEY": "BROKER_ADMIN_KEY=$(openssl rand -base64 32)",
    "BROKER_OIDC_ISSUER": "BROKER_OIDC_ISSUER=https://login.example.com",
    "BROKER_OIDC_CLIENT_ID": "BROKER_OIDC_CLIENT_ID=ignition-broker",
    "BROKER_OIDC_CLIENT_SECRET": "BROKER_OIDC_CLIENT_SECRET=the-secret-from-the-identity-provider",
    "BROKER_OIDC_ADMIN_GROUPS": "BROKER_OIDC_ADMIN_GROUPS=broker-admins",
    "BROKER_PORT": "BROKER_PORT=3000",
    "BROKER_JWT_ISSUERS": 'BROKER_JWT_ISSUERS=[{"issuer": "https://issuer.example.com", '
    '"audience": "ignition-broker", "rules": [{"match": {"sub": "invoicing"}, '
    '"scopes": ["token"], "tenants": ["acme"]}]}]',
    "BROKER_TRUSTED_PROXIES": "BROKER_TRUSTED_PROXIES=10.0.0.0/8,192.0.2.7",
    "BROKER_OPERATIONS_PORT": "BROKER_OPERATIONS_PORT=3001",
    "BROKER_CA_FILE": "BROKER_CA_FILE=/etc/ssl/inner-authority.pem",
    "HTTPS_PROXY": "HTTPS_PROXY=http://proxy.example.com:3128",
    "HTTP_PROXY": "HTTP_PROXY=http://proxy.example.com:3128",
    "IGNITION_CLIENT_AUTH": "IGNITION_CLIENT_AUTH=client_secret_post",
    "IGNITION_TOKEN_FORMAT": "IGNITION_TOKEN_FORMAT=form",
    "IGNITION_REFUSAL_CODES": "IGNITION_REFUSAL_CODES=bad_refresh_token invalid_refresh_token",
    "BROKER_WEBHOOK_URLS": "BROKER_WEBHOOK_URLS=https://hooks.example.com/broker",
    "BROKER_WEBHOOK_SECRET": "BROKER_WEBHOOK_SECRET=whsec_$(openssl rand -base64 32)",
    "BROKER_WEBHOOK_ALLOW": "BROKER_WEBHOOK_ALLOW=10.20.0.0/16,hooks.internal.example.com",
    "BROKER_SMTP_URL": "BROKER_SMTP_URL=smtp://user:password@mail.example.com:587",
    "BROKER_NOTIFY_EMAILS": "BROKER_NOTIFY_EMAILS=admins@example.com",
    "IGNITION_IDENTITY_URL": "IGNITION_IDENTITY_URL=https://api.example.com/v1/me",
    "IGNITION_IDENTITY_ID": "IGNITION_IDENTITY_ID=/data/practice/id",
    "IGNITION_IDENTITY_NAME": "IGNITION_IDENTITY_NAME=/data/practice/name",
    "IGNITION_API_ALLOWANCE": "IGNITION_API_ALLOWANCE=1000/3600",
    "BROKER_BRAND": "BROKER_BRAND=Example Accounting",
    "BROKER_BRAND_LOGO": "BROKER_BRAND_LOGO=/etc/ignition-broker/logo.svg",
    "BROKER_BRAND_COLOR": "BROKER_BRAND_COLOR=#0b5fa5",
    "BROKER_RETURN_ORIGINS": "BROKER_RETURN_ORIGINS=https://app.example.com",
    "BROKER_LOG_LEVEL": "BROKER_LOG_LEVEL=INFO",
    "BROKER_LOG_FORMAT": "BROKER_LOG_FORMAT=auto",
}
"""What a line about a setting shows; any other shows its default."""

AnySettings = TypeVar("AnySettings", bound=DatabaseSettings)


class SettingsError(Exception):
    """``lines``: one per setting that is missing or malformed."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def load_settings(kind: type[AnySettings]) -> AnySettings:
    """Settings of that kind. Raises `SettingsError`."""
    folder = unquoted(trimmed(os.environ.get("BROKER_SECRETS_DIR", "")))
    if folder and not Path(folder).is_dir():
        raise SettingsError(
            ["BROKER_SECRETS_DIR: no such folder; example: BROKER_SECRETS_DIR=/run/secrets"]
        )
    lines = unreadable(kind.model_fields, Path(folder) if folder else None)
    if lines:
        raise SettingsError(lines)
    try:
        return kind(_secrets_dir=folder or None)  # type: ignore[call-arg]
    except ValidationError as error:
        problems = error.errors()
        raise SettingsError([line for each in problems for line in _lines(each, kind)]) from None


def _lines(problem: Mapping[str, Any], kind: type[DatabaseSettings]) -> list[str]:
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, ClientFaults):
        return [f"IGNITION_CLIENTS: {line}" for line in cause.lines]
    return [_line(problem, kind)]


def _line(problem: Mapping[str, Any], kind: type[DatabaseSettings]) -> str:
    location = problem.get("loc")
    name = str(location[0]).upper() if isinstance(location, tuple) and location else "?"
    reason = "is missing" if problem.get("type") == "missing" else str(problem.get("msg"))
    example = EXAMPLES.get(name, f"{name}={_default(name, kind)}")
    return f"{name}: {reason.removeprefix('Value error, ')}; example: {example}"


def _default(name: str, kind: type[DatabaseSettings]) -> object:
    field = kind.model_fields.get(name.lower())
    return "" if field is None or field.default is None else field.default
