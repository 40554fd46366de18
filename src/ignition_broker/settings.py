"""Settings: the environment, a `.env` file, or one file a setting, parsed once."""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ignition_broker.oauth.answers import plain_code
from ignition_broker.outbound.egress_proxies import EgressProxies, parse_proxy, with_scheme
from ignition_broker.outbound.tls import check_authorities
from ignition_broker.setting_values import (
    AsMeant,
    LowerCaseFirst,
    as_meant,
    check_one_word,
    trimmed,
    unquoted,
    unreadable,
)

_REDIRECT = re.compile(r"(?i:https?)://[^/?#\\\s]+/callback")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_FERNET_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")
# RFC 3986 section 2: none of these stands in a URL; nor do blanks.
_NO_URL = re.compile(r'["<>\\^`{|}]')

DEFAULT_PATIENCE = 120

EXAMPLES = {
    "IGNITION_CLIENT_ID": "IGNITION_CLIENT_ID=my-client",
    "IGNITION_CLIENT_SECRET": "IGNITION_CLIENT_SECRET=the-secret-from-ignition",
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
    "BROKER_LOG_LEVEL": "BROKER_LOG_LEVEL=INFO",
    "BROKER_LOG_FORMAT": "BROKER_LOG_FORMAT=auto",
}


AnySettings = TypeVar("AnySettings", bound="DatabaseSettings")


class SettingsError(Exception):
    """``lines``: one per setting that is missing or malformed."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class DatabaseSettings(BaseSettings):
    """What the commands need that work at the database alone.

    Field names are the settings' names in lower case; an empty value is an unset one.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        # With or without the mark that some editors write at the beginning.
        env_file_encoding="utf-8-sig",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    database_url: SecretStr = Field(min_length=1)
    redirect_uri: str = "http://localhost:3000/callback"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        proxies = LowerCaseFirst(settings_cls, ("https_proxy", "http_proxy", "no_proxy"))
        sources = map(AsMeant, (proxies, env_settings, dotenv_settings, file_secret_settings))
        return init_settings, *sources

    @field_validator("*", mode="before")
    @classmethod
    def _is_as_meant(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, str) and info.field_name is not None:
            return as_meant(info.field_name, value)
        return value

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text.endswith(("'", '"')):
            raise ValueError("must not end with a quote")
        scheme, separator, rest = text.partition("://")
        if not separator or scheme not in {"postgresql+asyncpg", "postgresql", "postgres"}:
            raise ValueError("must begin with postgresql+asyncpg:// or postgresql://")
        try:
            _port = urlsplit(f"postgresql://{rest}").port
        except ValueError:
            raise ValueError("has no proper host and port; percent-encode the password") from None
        return SecretStr(f"postgresql+asyncpg://{rest}")

    @field_validator("redirect_uri")
    @classmethod
    def _is_safe_redirect(cls, value: str) -> str:
        _safe_url(value)
        # To the letter: the standard library's parser drops an empty query, and tabs.
        if not _REDIRECT.fullmatch(value):
            raise ValueError("its path must be /callback, with nothing behind it, no slash either")
        return value

    def secrets(self) -> list[str]:
        """In clear: for the log, which masks them. Of ``database_url`` the password alone."""
        fields = (getattr(self, name) for name in type(self).model_fields)
        values = [field.get_secret_value() for field in fields if isinstance(field, SecretStr)]
        password = urlsplit(self.database_url.get_secret_value()).password
        each = [*values, *(key for value in values for key in value.split(","))]
        return [*each, *([password, unquote(password)] if password else [])]

    @property
    def is_https(self) -> bool:
        return self.redirect_uri.startswith("https:")

    @property
    def public_origin(self) -> str:
        """Where browsers reach this service, read off the redirect URI."""
        parts = urlsplit(self.redirect_uri)
        return f"{parts.scheme}://{parts.netloc}"


class RotationSettings(DatabaseSettings):
    """What a change of keys needs."""

    broker_encryption_keys: SecretStr = Field(min_length=1)

    @field_validator("broker_encryption_keys")
    @classmethod
    def _are_fernet_keys(cls, value: SecretStr) -> SecretStr:
        keys = fernet_keys(value)
        for key in keys:
            # The library passes over characters that are none of the alphabet.
            if not _FERNET_KEY.fullmatch(key):
                raise ValueError("must be Fernet keys, comma separated")
        if not keys:
            raise ValueError("must hold at least one Fernet key")
        return value


class Settings(RotationSettings):
    """All that the service needs."""

    ignition_client_id: str = Field(min_length=1)
    ignition_client_secret: SecretStr = Field(min_length=1)
    ignition_authorize_url: str = "https://ignition.com/oauth/authorize"
    ignition_token_url: str = "https://ignition.com/oauth/token"
    ignition_revoke_url: str | None = None
    ignition_api_url: str = "https://api.ignition.com"
    ignition_issuer: str | None = None
    ignition_scopes: str = ""
    ignition_client_auth: Literal["client_secret_post", "client_secret_basic"] = (
        "client_secret_post"
    )
    ignition_token_format: Literal["form", "json"] = "form"
    ignition_refusal_codes: str = ""
    broker_ca_file: str | None = None
    # May hold credentials.
    https_proxy: str | None = Field(None, repr=False)
    http_proxy: str | None = Field(None, repr=False)
    no_proxy: str = ""
    broker_admin_key: SecretStr | None = None
    broker_jwt_issuers: str = ""
    broker_failed_attempts: int = Field(300, ge=0)
    broker_trusted_proxies: str = ""
    # Ahead of what it makes required.
    broker_oidc_issuer: str | None = None
    broker_oidc_client_id: str | None = None
    broker_oidc_client_secret: SecretStr | None = None
    broker_oidc_admin_groups: str = ""
    broker_oidc_groups_claim: str = Field("groups", min_length=1)
    broker_oidc_scopes: str = "openid profile email"
    broker_host: str = "127.0.0.1"
    broker_port: int = Field(3000, ge=1, le=65535)
    broker_operations_host: str | None = None
    broker_operations_port: int | None = Field(None, ge=1, le=65535)
    broker_refresh_lead: float = Field(300, ge=0)
    broker_keepalive: float = Field(86400, ge=0)
    broker_remember_answers: float = Field(600, ge=0)
    broker_proxy_replay_limit: int = Field(1_048_576, ge=0)
    broker_proxy_timeout: float = Field(30, gt=0)
    broker_proxy_connect_timeout: float = Field(5, gt=0)
    broker_proxy_idle_timeout: float = Field(300, gt=0)
    broker_proxy_connections: int = Field(1000, ge=1)
    broker_proxy_http2: bool = False
    broker_proxy_tenant_concurrency: int = Field(200, ge=1)
    broker_log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    broker_log_format: Literal["auto", "json", "console"] = "auto"
    broker_refresh_rate: float = Field(400, gt=0)
    broker_audit_strict: bool = False
    broker_audit_retention: float = Field(0, ge=0, le=36_500)
    broker_provider_timeout: float = Field(10, gt=0, le=300)
    broker_provider_patience: float = Field(DEFAULT_PATIENCE, gt=0, le=3600)
    broker_drain_seconds: float = Field(5, ge=0, le=3600)
    broker_grace_seconds: float = Field(30, ge=0, le=3600)

    @field_validator("broker_provider_patience")
    @classmethod
    def _outlasts_callers(cls, value: float, others: ValidationInfo) -> float:
        is_set = value != DEFAULT_PATIENCE
        if is_set and value < others.data.get("broker_provider_timeout", 0):
            raise ValueError("must be at least BROKER_PROVIDER_TIMEOUT, for which callers wait")
        return value

    @property
    def provider_patience(self) -> float:
        """Never less than callers wait."""
        return max(self.broker_provider_patience, self.broker_provider_timeout)

    @field_validator("broker_operations_port")
    @classmethod
    def _is_another_port(cls, value: int | None, others: ValidationInfo) -> int | None:
        if value is not None and value == others.data.get("broker_port"):
            raise ValueError("must differ from BROKER_PORT; leave it unset for one port")
        return value

    @property
    def operations_address(self) -> tuple[str, int] | None:
        """Host and port of their own for `/metrics` and `/docs`; None: they share the one."""
        if self.broker_operations_port is None:
            return None
        return self.broker_operations_host or self.broker_host, self.broker_operations_port

    @field_validator("broker_log_level", mode="before")
    @classmethod
    def _in_any_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator(
        "ignition_authorize_url", "ignition_token_url", "ignition_revoke_url", "ignition_api_url"
    )
    @classmethod
    def _is_safe_url(cls, value: str | None) -> str | None:
        return None if value is None else _safe_url(value)

    @field_validator("ignition_refusal_codes")
    @classmethod
    def _are_error_codes(cls, value: str) -> str:
        for code in value.split():
            if not plain_code(code) or not code.isascii() or "," in code:
                raise ValueError("must be error codes, separated by blanks")
        return value

    @property
    def refusal_codes(self) -> frozenset[str]:
        return frozenset(plain_code(code) for code in self.ignition_refusal_codes.split())

    @field_validator("broker_ca_file")
    @classmethod
    def _holds_authorities(cls, value: str | None) -> str | None:
        if value is not None:
            check_authorities(value)
        return value

    @field_validator("https_proxy", "http_proxy")
    @classmethod
    def _is_proxy(cls, value: str | None) -> str | None:
        if value is not None:
            parse_proxy(value)
        return value

    @property
    def egress_proxies(self) -> EgressProxies:
        return EgressProxies.of(https=self.https_proxy, http=self.http_proxy, exempt=self.no_proxy)

    def secrets(self) -> list[str]:
        """Those of the proxies' URLs too."""
        passwords = []
        for url in (self.https_proxy, self.http_proxy):
            password = None if url is None else urlsplit(with_scheme(url)).password
            if password:
                passwords += [password, unquote(password)]
        return [*super().secrets(), *passwords]

    @field_validator("broker_oidc_issuer")
    @classmethod
    def _is_issuer(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(_safe_url(value)).query:
            raise ValueError("must have no query")
        return value

    @field_validator(
        "broker_oidc_client_id", "broker_oidc_client_secret", "broker_oidc_admin_groups"
    )
    @classmethod
    def _is_there_with_an_issuer(
        cls, value: str | SecretStr | None, info: ValidationInfo
    ) -> str | SecretStr | None:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        is_empty = not (text or "").strip(", ")
        if is_empty and info.data.get("broker_oidc_issuer") is not None:
            raise ValueError("is missing, and needed beside BROKER_OIDC_ISSUER")
        return value

    @field_validator("broker_oidc_scopes")
    @classmethod
    def _has_openid(cls, value: str) -> str:
        if "openid" not in value.split():
            raise ValueError("must hold openid")
        return value

    @property
    def admin_groups(self) -> tuple[str, ...]:
        names = (name.strip() for name in self.broker_oidc_admin_groups.split(","))
        return tuple(name for name in names if name)

    @field_validator("broker_admin_key")
    @classmethod
    def _is_long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters")
        return value

    @field_validator("broker_jwt_issuers")
    @classmethod
    def _are_issuers(cls, value: str) -> str:
        if value:
            from ignition_broker.broker.callers.workload_issuers import parse_issuers

            parse_issuers(value)
        return value

    @property
    def trusted_networks(self) -> list[IPv4Network | IPv6Network]:
        return [ip_network(part) for part in self.broker_trusted_proxies.split(",") if part]

    @field_validator("broker_trusted_proxies")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        networks = [part.strip() for part in value.split(",") if part.strip()]
        for network in networks:
            try:
                is_everything = ip_network(network).prefixlen == 0
            except ValueError:
                raise ValueError(
                    "must be addresses and networks, comma separated, with no bits set behind the "
                    "prefix"
                ) from None
            if is_everything:
                raise ValueError("must not be all addresses: anyone could name any as its own")
        return ",".join(networks)


def fernet_keys(value: SecretStr) -> list[str]:
    return [key.strip() for key in value.get_secret_value().split(",") if key.strip()]


def load_settings(kind: type[AnySettings]) -> AnySettings:
    """Raises `SettingsError`."""
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
        raise SettingsError([_line(problem) for problem in error.errors()]) from None


def _line(problem: object) -> str:
    fields: dict[str, object] = dict(problem)  # type: ignore[call-overload]
    location = fields.get("loc")
    name = str(location[0]).upper() if isinstance(location, tuple) and location else "?"
    reason = "is missing" if fields.get("type") == "missing" else str(fields.get("msg"))
    example = EXAMPLES.get(name, f"{name}={_default(name)}")
    return f"{name}: {reason.removeprefix('Value error, ')}; example: {example}"


def _default(name: str) -> object:
    field = Settings.model_fields.get(name.lower())
    return "" if field is None or field.default is None else field.default


def _safe_url(value: str) -> str:
    check_one_word(value)
    if _NO_URL.search(value):
        raise ValueError("must not hold a character that no URL has, such as a quote")
    try:
        parts = urlsplit(value)
        _port = parts.port
        parts.netloc.encode("idna")
    except ValueError:
        raise ValueError("must be an absolute http or https URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an absolute http or https URL")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ValueError("must be https, since its host is not loopback")
    if parts.fragment or parts.username:
        raise ValueError("must have neither a fragment nor credentials")
    return value
