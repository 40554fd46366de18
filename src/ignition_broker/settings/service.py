"""All that the service needs."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from ignition_broker.oauth.answers import plain_code
from ignition_broker.outbound.egress_proxies import EgressProxies, with_scheme
from ignition_broker.settings.database import RotationSettings
from ignition_broker.settings.field_types import (
    AuthoritiesFile,
    ErrorCodes,
    InAnyCase,
    IssuerUrl,
    JwtIssuers,
    LongKey,
    Networks,
    OpenIdScopes,
    ProxyUrl,
    SafeUrl,
)
from ignition_broker.settings.profiles import GUIDE, Profile, placeholders, with_profile

DEFAULT_PATIENCE = 120


class Settings(RotationSettings):
    """All that the service needs."""

    ignition_client_id: str = Field(min_length=1)
    ignition_client_secret: SecretStr = Field(min_length=1)
    ignition_profile: Profile = "guide"
    ignition_authorize_url: SafeUrl = GUIDE["ignition_authorize_url"]
    ignition_token_url: SafeUrl = GUIDE["ignition_token_url"]
    ignition_revoke_url: SafeUrl | None = None
    ignition_api_url: SafeUrl = GUIDE["ignition_api_url"]
    ignition_issuer: str | None = None
    ignition_scopes: str = ""
    ignition_client_auth: Literal["client_secret_post", "client_secret_basic"] = (
        "client_secret_post"
    )
    ignition_token_format: Literal["form", "json"] = "form"
    ignition_refusal_codes: ErrorCodes = ""
    broker_ca_file: AuthoritiesFile | None = None
    # May hold credentials.
    https_proxy: ProxyUrl | None = Field(None, repr=False)
    http_proxy: ProxyUrl | None = Field(None, repr=False)
    no_proxy: str = ""
    broker_admin_key: LongKey | None = None
    broker_jwt_issuers: JwtIssuers = ""
    broker_failed_attempts: int = Field(300, ge=0)
    broker_trusted_proxies: Networks = ""
    # Before the fields that it makes required: their check reads it.
    broker_oidc_issuer: IssuerUrl | None = None
    broker_oidc_client_id: str | None = None
    broker_oidc_client_secret: SecretStr | None = None
    broker_oidc_admin_groups: str = ""
    broker_oidc_groups_claim: str = Field("groups", min_length=1)
    broker_oidc_scopes: OpenIdScopes = "openid profile email"
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
    broker_log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], InAnyCase] = "INFO"
    broker_log_format: Literal["auto", "json", "console"] = "auto"
    broker_refresh_rate: float = Field(400, gt=0)
    broker_audit_strict: bool = False
    broker_audit_retention: float = Field(0, ge=0, le=36_500)
    broker_provider_timeout: float = Field(10, gt=0, le=300)
    broker_provider_patience: float = Field(DEFAULT_PATIENCE, gt=0, le=3600)
    broker_drain_seconds: float = Field(5, ge=0, le=3600)
    broker_grace_seconds: float = Field(30, ge=0, le=3600)

    @model_validator(mode="before")
    @classmethod
    def _has_what_its_profile_sets(cls, values: dict[str, Any]) -> dict[str, Any]:
        return with_profile(values)

    @property
    def placeholders(self) -> list[str]:
        """The settings that still hold the guide's addresses, where nobody answers."""
        return placeholders({name: getattr(self, name) for name in GUIDE})

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

    @property
    def refusal_codes(self) -> frozenset[str]:
        return frozenset(plain_code(code) for code in self.ignition_refusal_codes.split())

    @property
    def egress_proxies(self) -> EgressProxies:
        return EgressProxies.of(https=self.https_proxy, http=self.http_proxy, exempt=self.no_proxy)

    def secrets(self) -> list[str]:
        """In clear, with the passwords in the proxies' URLs."""
        passwords = []
        for url in (self.https_proxy, self.http_proxy):
            password = None if url is None else urlsplit(with_scheme(url)).password
            if password:
                passwords += [password, unquote(password)]
        return [*super().secrets(), *passwords]

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

    @property
    def admin_groups(self) -> tuple[str, ...]:
        names = (name.strip() for name in self.broker_oidc_admin_groups.split(","))
        return tuple(name for name in names if name)

    @property
    def trusted_networks(self) -> list[IPv4Network | IPv6Network]:
        return [ip_network(part) for part in self.broker_trusted_proxies.split(",") if part]
