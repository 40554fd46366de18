"""The kinds of values that settings hold, each with its check.

A check raises `ValueError`. Its text follows the setting's name and must not repeat the value.

Over 250 lines: a kind of value is found in one place.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from ignition_broker.branding import check_color, read_logo
from ignition_broker.broker.notifications.destinations import Kind, parse_email, parse_url
from ignition_broker.broker.notifications.mail_server import parse_mail_server
from ignition_broker.broker.notifications.signing import is_secret
from ignition_broker.json_pointer import parse_pointer
from ignition_broker.oauth.answers import plain_code
from ignition_broker.outbound.address_guard import AddressGuard
from ignition_broker.outbound.egress_proxies import parse_proxy
from ignition_broker.outbound.tls import check_authorities
from ignition_broker.return_addresses import parse_origins
from ignition_broker.secure_urls import is_https_or_loopback
from ignition_broker.settings.normalization import check_one_word

_REDIRECT = re.compile(r"(?i:https?)://[^/?#\\\s]+/callback")
_FERNET_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")
_ALLOWANCE = re.compile(r"([0-9]{1,12})/([0-9]{1,7}(?:\.[0-9]{1,3})?)")
NO_ALLOWANCE = "none"
# RFC 3986 section 2: none of these stands in a URL; nor do blanks.
_NO_URL = re.compile(r'["<>\\^`{|}]')


def safe_url(value: str) -> str:
    """An absolute URL by https, or by http to this machine."""
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
    if not is_https_or_loopback(parts):
        raise ValueError("must be https, since its host is not loopback")
    if parts.fragment or parts.username:
        raise ValueError("must have neither a fragment nor credentials")
    return value


def redirect_uri(value: str) -> str:
    """A safe URL whose path is /callback."""
    safe_url(value)
    # To the letter: the standard library's parser drops an empty query, and tabs.
    if not _REDIRECT.fullmatch(value):
        raise ValueError("its path must be /callback, with nothing behind it, no slash either")
    return value


def issuer(value: str) -> str:
    """A safe URL without a query (OpenID Connect Discovery section 3)."""
    if urlsplit(safe_url(value)).query:
        raise ValueError("must have no query")
    return value


def database_url(value: SecretStr) -> SecretStr:
    """A URL of Postgres, with the driver's name put in."""
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


def fernet_keys(value: SecretStr) -> list[str]:
    """The keys of a list with commas between them."""
    return [key.strip() for key in value.get_secret_value().split(",") if key.strip()]


def are_fernet_keys(value: SecretStr) -> SecretStr:
    """At least one key."""
    keys = fernet_keys(value)
    for key in keys:
        # The library passes over characters that are none of the alphabet.
        if not _FERNET_KEY.fullmatch(key):
            raise ValueError("must be Fernet keys, comma separated")
    if not keys:
        raise ValueError("must hold at least one Fernet key")
    return value


def long_key(value: SecretStr) -> SecretStr:
    """A key of at least 32 characters."""
    if len(value.get_secret_value()) < 32:
        raise ValueError("must have at least 32 characters")
    return value


def error_codes(value: str) -> str:
    """OAuth error codes with blanks between them."""
    for code in value.split():
        if not plain_code(code) or not code.isascii() or "," in code:
            raise ValueError("must be error codes, separated by blanks")
    return value


def json_pointer(value: str) -> str:
    """A JSON pointer (RFC 6901)."""
    parse_pointer(value)
    return value


def openid_scopes(value: str) -> str:
    """Scopes for signing on (OpenID Connect Core section 3.1.2.1)."""
    if "openid" not in value.split():
        raise ValueError("must hold openid")
    return value


def networks(value: str) -> str:
    """Addresses and networks with commas between them."""
    found = [part.strip() for part in value.split(",") if part.strip()]
    for network in found:
        try:
            is_everything = ip_network(network).prefixlen == 0
        except ValueError:
            raise ValueError(
                "must be addresses and networks, comma separated, with no bits set behind the "
                "prefix"
            ) from None
        if is_everything:
            raise ValueError("must not be all addresses: anyone could name any as its own")
    return ",".join(found)


def authorities_file(value: str) -> str:
    """A file of certificate authorities that can be read."""
    check_authorities(value)
    return value


def proxy_url(value: str) -> str:
    """The URL of an egress proxy."""
    parse_proxy(value)
    return value


def call_allowance(value: str) -> str:
    """``CALLS/SECONDS``, or none."""
    parsed_allowance(value)
    return value


def parsed_allowance(value: str) -> tuple[int, float] | None:
    """Calls and seconds; None for none."""
    if value == NO_ALLOWANCE:
        return None
    found = _ALLOWANCE.fullmatch(value)
    calls, seconds = (0, 0.0) if found is None else (int(found[1]), float(found[2]))
    if calls < 1 or seconds < 1:
        raise ValueError("must be CALLS/SECONDS, each at least 1, or none")
    return calls, seconds


def jwt_issuers(value: str) -> str:
    """The issuers of JWTs, as JSON."""
    if value:
        # Here, since whatever has no such issuer starts faster without it.
        from ignition_broker.broker.callers.workload_issuers import parse_issuers

        parse_issuers(value)
    return value


def webhook_urls(value: SecretStr) -> SecretStr:
    """URLs of webhooks with commas between them."""
    for url in value.get_secret_value().split(","):
        parse_url(url)
    return value


def needs_secret(value: SecretStr) -> bool:
    """Whether one of the URLs is of a webhook that is signed."""
    kinds = (parse_url(url).kind for url in value.get_secret_value().split(","))
    return Kind.WEBHOOK in kinds


def webhook_secrets(value: SecretStr) -> SecretStr:
    """One secret, or two while one replaces the other."""
    parts = value.get_secret_value().split(",")
    if len(parts) > 2:
        raise ValueError("must be one secret, or two during a rotation, the new one first")
    if not all(is_secret(part) for part in parts):
        raise ValueError("must be whsec_ and the base64 of 24 to 64 random bytes")
    return value


def allowed_destinations(value: str) -> str:
    """Hosts, addresses and networks with commas between them."""
    AddressGuard.of(value)
    return value


def smtp_url(value: SecretStr) -> SecretStr:
    """The URL of a mail server."""
    parse_mail_server(value.get_secret_value())
    return value


def email_addresses(value: str) -> str:
    """E-mail addresses with commas between them."""
    for address in value.split(","):
        if address:
            parse_email(address)
    return value


def return_origins(value: str) -> str:
    """Origins with commas between them."""
    parse_origins(value)
    return value


def brand_color(value: str) -> str:
    """A colour that white text can be read on."""
    return check_color(value)


def brand_logo(value: str) -> str:
    """A file with a PNG or a harmless SVG."""
    read_logo(value)
    return value


def upper_case(value: object) -> object:
    """A text in upper case, anything else as it is."""
    return value.upper() if isinstance(value, str) else value


Pointer = Annotated[str, AfterValidator(json_pointer)]
SafeUrl = Annotated[str, AfterValidator(safe_url)]
RedirectUri = Annotated[str, AfterValidator(redirect_uri)]
IssuerUrl = Annotated[str, AfterValidator(issuer)]
DatabaseUrl = Annotated[SecretStr, Field(min_length=1), AfterValidator(database_url)]
FernetKeys = Annotated[SecretStr, Field(min_length=1), AfterValidator(are_fernet_keys)]
LongKey = Annotated[SecretStr, AfterValidator(long_key)]
ErrorCodes = Annotated[str, AfterValidator(error_codes)]
OpenIdScopes = Annotated[str, AfterValidator(openid_scopes)]
Networks = Annotated[str, AfterValidator(networks)]
AuthoritiesFile = Annotated[str, AfterValidator(authorities_file)]
ProxyUrl = Annotated[str, AfterValidator(proxy_url)]
CallAllowance = Annotated[str, AfterValidator(call_allowance)]
JwtIssuers = Annotated[str, AfterValidator(jwt_issuers)]
WebhookUrls = Annotated[SecretStr, AfterValidator(webhook_urls)]
WebhookSecrets = Annotated[SecretStr, AfterValidator(webhook_secrets)]
AllowedDestinations = Annotated[str, AfterValidator(allowed_destinations)]
SmtpUrl = Annotated[SecretStr, AfterValidator(smtp_url)]
EmailAddresses = Annotated[str, AfterValidator(email_addresses)]
ReturnOrigins = Annotated[str, AfterValidator(return_origins)]
BrandColor = Annotated[str, AfterValidator(brand_color)]
BrandLogo = Annotated[str, AfterValidator(brand_logo)]
InAnyCase = BeforeValidator(upper_case)
