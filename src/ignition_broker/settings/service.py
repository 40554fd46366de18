"""All that the service needs.

Over 250 lines: a setting is found in one place, with its check.
"""

from __future__ import annotations

from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from ignition_broker.branding import Brand, read_logo
from ignition_broker.grant_ids import DEFAULT_CLIENT
from ignition_broker.oauth.answers import plain_code
from ignition_broker.outbound.egress_proxies import EgressProxies, with_scheme
from ignition_broker.settings.clients import (
    ClientSettings,
    IgnitionClients,
    client_settings,
    parse_clients,
)
from ignition_broker.settings.database import RotationSettings
from ignition_broker.settings.field_types import (
    NO_ALLOWANCE,
    AllowedDestinations,
    AuthoritiesFile,
    BrandColor,
    BrandLogo,
    CallAllowance,
    EmailAddresses,
    ErrorCodes,
    InAnyCase,
    IssuerUrl,
    JwtIssuers,
    LongKey,
    Networks,
    OpenIdScopes,
    Pointer,
    ProxyUrl,
    ReturnOrigins,
    SafeUrl,
    SmtpUrl,
    WebhookSecrets,
    WebhookUrls,
    needs_secret,
)
from ignition_broker.settings.profiles import GUIDE, Profile, placeholders, with_profile

DEFAULT_PATIENCE = 120


class Settings(RotationSettings):
    """All that the service needs."""

    ignition_client_id: str = Field(min_length=1)
    ignition_client_secret: SecretStr = Field(min_length=1)
    ignition_client_secret_previous: SecretStr | None = None
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
    # Before the pointers: their check reads it.
    ignition_identity_url: SafeUrl | None = None
    ignition_identity_id: Pointer | None = Field(None, validate_default=True)
    ignition_identity_name: Pointer | None = None
    ignition_clients: IgnitionClients = ""
    ignition_api_allowance: CallAllowance = NO_ALLOWANCE
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
    # A URL may hold a password, as those of Slack do.
    broker_webhook_urls: WebhookUrls | None = None
    broker_webhook_secret: WebhookSecrets | None = None
    broker_webhook_allow: AllowedDestinations = ""
    broker_smtp_url: SmtpUrl | None = None
    broker_notify_emails: EmailAddresses = ""
    # Before the logo: its check reads it.
    broker_brand: str | None = Field(None, max_length=80)
    broker_brand_logo: BrandLogo | None = None
    broker_brand_color: BrandColor | None = None
    broker_return_origins: ReturnOrigins = ""
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

    @cached_property
    def oauth_clients(self) -> dict[str, ClientSettings]:
        """The OAuth clients by name, the default one first."""
        default = ClientSettings(
            client_id=self.ignition_client_id,
            secret=self.ignition_client_secret,
            previous_secret=self.ignition_client_secret_previous,
            authorize_url=self.ignition_authorize_url,
            token_url=self.ignition_token_url,
            revoke_url=self.ignition_revoke_url,
            api_url=self.ignition_api_url,
            issuer=self.ignition_issuer,
            scopes=self.ignition_scopes,
            client_auth=self.ignition_client_auth,
            token_format=self.ignition_token_format,
            refusal_codes=self.refusal_codes,
            identity_url=self.ignition_identity_url,
            identity_id=self.ignition_identity_id,
            identity_name=self.ignition_identity_name,
            api_allowance=self.ignition_api_allowance,
        )
        given = parse_clients(self.ignition_clients)
        return {
            DEFAULT_CLIENT: default,
            **{name: client_settings(each, default) for name, each in given.items()},
        }

    @property
    def placeholders(self) -> list[str]:
        """The settings that still hold the guide's addresses, where nobody answers."""
        return placeholders({name: getattr(self, name) for name in GUIDE})

    @field_validator("ignition_identity_id", "ignition_identity_name")
    @classmethod
    def _is_there_with_an_address(cls, value: str | None, info: ValidationInfo) -> str | None:
        # An address that is malformed is told in its own line.
        if "ignition_identity_url" not in info.data:
            return value
        is_asked = info.data["ignition_identity_url"] is not None
        if is_asked and value is None and info.field_name == "ignition_identity_id":
            raise ValueError("is missing, and needed beside IGNITION_IDENTITY_URL")
        if value is not None and not is_asked:
            raise ValueError("leads nowhere without IGNITION_IDENTITY_URL; set that, or unset this")
        return value

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
        """In clear, with the passwords in the URLs of proxies and of the mail server."""
        passwords = []
        smtp_url = None
        if self.broker_smtp_url is not None:
            smtp_url = self.broker_smtp_url.get_secret_value()
        for url in (self.https_proxy, self.http_proxy, smtp_url):
            password = None if url is None else urlsplit(with_scheme(url)).password
            if password:
                passwords += [password, unquote(password)]
        clients = self.oauth_clients.values()
        secrets = (secret for each in clients for secret in (each.secret, each.previous_secret))
        known = [secret.get_secret_value() for secret in secrets if secret is not None]
        return [*super().secrets(), *known, *passwords]

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

    @field_validator("broker_webhook_secret")
    @classmethod
    def _signs_what_is_sent(
        cls, value: SecretStr | None, others: ValidationInfo
    ) -> SecretStr | None:
        urls = others.data.get("broker_webhook_urls")
        if value is None and urls is not None and needs_secret(urls):
            raise ValueError("is missing, and needed beside BROKER_WEBHOOK_URLS")
        return value

    @field_validator("broker_notify_emails")
    @classmethod
    def _has_a_mail_server(cls, value: str, others: ValidationInfo) -> str:
        # If the mail server is malformed, that alone is said.
        if value and others.data.get("broker_smtp_url", "malformed") is None:
            raise ValueError("needs BROKER_SMTP_URL beside it")
        return value

    @field_validator("broker_brand_logo")
    @classmethod
    def _has_a_name(cls, value: str | None, others: ValidationInfo) -> str | None:
        # If the name is malformed, that alone is said.
        if value is not None and others.data.get("broker_brand", "malformed") is None:
            raise ValueError("needs BROKER_BRAND beside it, for those who can't see it")
        return value

    @cached_property
    def brand(self) -> Brand:
        """What the pages behind connect links call the company. Reads the logo's file."""
        logo = None if self.broker_brand_logo is None else read_logo(self.broker_brand_logo)
        return Brand(self.broker_brand, logo, self.broker_brand_color)

    @property
    def webhook_urls(self) -> list[str]:
        return _listed(self.broker_webhook_urls)

    @property
    def webhook_secrets(self) -> list[str]:
        """The one that replaces another comes first."""
        return _listed(self.broker_webhook_secret)

    @property
    def notify_emails(self) -> list[str]:
        return [each for each in self.broker_notify_emails.split(",") if each]

    @property
    def admin_groups(self) -> tuple[str, ...]:
        names = (name.strip() for name in self.broker_oidc_admin_groups.split(","))
        return tuple(name for name in names if name)

    @property
    def trusted_networks(self) -> list[IPv4Network | IPv6Network]:
        return [ip_network(part) for part in self.broker_trusted_proxies.split(",") if part]


def _listed(value: SecretStr | None) -> list[str]:
    parts = [] if value is None else value.get_secret_value().split(",")
    return [part for part in parts if part]
