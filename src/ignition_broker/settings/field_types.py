"""The kinds of values that settings hold, each with its check.

A check raises `ValueError`. Its text follows the setting's name and must not repeat the value.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from ignition_broker.oauth.answers import plain_code
from ignition_broker.outbound.egress_proxies import parse_proxy
from ignition_broker.outbound.tls import check_authorities
from ignition_broker.secure_urls import is_https_or_loopback
from ignition_broker.settings.normalization import check_one_word

_REDIRECT = re.compile(r"(?i:https?)://[^/?#\\\s]+/callback")
_FERNET_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")
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


def jwt_issuers(value: str) -> str:
    """The issuers of JWTs, as JSON."""
    if value:
        # Here, since whatever has no such issuer starts faster without it.
        from ignition_broker.broker.callers.workload_issuers import parse_issuers

        parse_issuers(value)
    return value


def upper_case(value: object) -> object:
    """A text in upper case, anything else as it is."""
    return value.upper() if isinstance(value, str) else value


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
JwtIssuers = Annotated[str, AfterValidator(jwt_issuers)]
InAnyCase = BeforeValidator(upper_case)
