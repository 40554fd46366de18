"""Builds requests to the authorization server. Pure: sends nothing."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote_plus, urlencode, urlsplit, urlunsplit

from ignition_broker.oauth.pkce import code_challenge
from ignition_broker.oauth.tokens import (
    AccessToken,
    AuthorizationCode,
    ClientSecret,
    CodeVerifier,
    RefreshToken,
)

BodyFormat = Literal["form", "json"]


@dataclass(frozen=True, slots=True)
class OAuthRequest:
    """A POST request to be sent. Its ``repr`` shows neither headers nor body."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


ClientAuthentication = Callable[[dict[str, str], dict[str, str]], None]
"""Adds the client's credentials to a request's headers and parameters."""


def client_secret_post(client_id: str, secret: ClientSecret) -> ClientAuthentication:
    """Sends the credentials in the body (RFC 6749 section 2.3.1)."""

    def authenticate(_headers: dict[str, str], parameters: dict[str, str]) -> None:
        parameters["client_id"] = client_id
        parameters["client_secret"] = secret.reveal()

    return authenticate


def client_secret_basic(client_id: str, secret: ClientSecret) -> ClientAuthentication:
    """Sends the credentials by HTTP Basic, both form-encoded first (RFC 6749 section 2.3.1)."""

    def authenticate(headers: dict[str, str], _parameters: dict[str, str]) -> None:
        pair = f"{quote_plus(client_id)}:{quote_plus(secret.reveal())}"
        headers["Authorization"] = "Basic " + b64encode(pair.encode()).decode("ascii")

    return authenticate


def authorization_url(
    endpoint: str,
    *,
    client_id: str,
    redirect_uri: str,
    scope: str,
    state: str,
    verifier: CodeVerifier,
) -> str:
    """The URL to which the browser is redirected (RFC 6749 section 4.1.1, RFC 7636 section 4.3).

    ``scope``: separated by spaces; empty: the provider's default. A query in ``endpoint`` is kept
    (RFC 6749 section 3.1).
    """
    parameters = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "state": state,
        "code_challenge": code_challenge(verifier),
        "code_challenge_method": "S256",
    }
    if scope:
        parameters["scope"] = scope
    parts = urlsplit(endpoint)
    query = "&".join(filter(None, [parts.query, urlencode(parameters)]))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def code_exchange_request(
    endpoint: str,
    *,
    code: AuthorizationCode,
    redirect_uri: str,
    verifier: CodeVerifier,
    authenticate: ClientAuthentication,
    body_format: BodyFormat,
) -> OAuthRequest:
    """The request that exchanges an authorization code for tokens (RFC 6749 section 4.1.3, RFC 7636
    section 4.5)."""
    parameters = {
        "grant_type": "authorization_code",
        "code": code.reveal(),
        "redirect_uri": redirect_uri,
        "code_verifier": verifier.reveal(),
    }
    return _post(endpoint, parameters, authenticate, body_format)


def refresh_request(
    endpoint: str,
    *,
    refresh_token: RefreshToken,
    authenticate: ClientAuthentication,
    body_format: BodyFormat,
) -> OAuthRequest:
    """The request that renews tokens (RFC 6749 section 6). Without ``scope``, which keeps what was
    granted."""
    parameters = {"grant_type": "refresh_token", "refresh_token": refresh_token.reveal()}
    return _post(endpoint, parameters, authenticate, body_format)


def revocation_request(
    endpoint: str, *, token: RefreshToken | AccessToken, authenticate: ClientAuthentication
) -> OAuthRequest:
    """The request that revokes a token, always form-encoded (RFC 7009 section 2.1)."""
    hint = "refresh_token" if isinstance(token, RefreshToken) else "access_token"
    parameters = {"token": token.reveal(), "token_type_hint": hint}
    return _post(endpoint, parameters, authenticate, "form")


def _post(
    endpoint: str,
    parameters: dict[str, str],
    authenticate: ClientAuthentication,
    body_format: BodyFormat,
) -> OAuthRequest:
    headers = {"Accept": "application/json"}
    authenticate(headers, parameters)
    if body_format == "json":
        headers["Content-Type"] = "application/json"
        return OAuthRequest(endpoint, headers, json.dumps(parameters).encode())
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    return OAuthRequest(endpoint, headers, urlencode(parameters).encode())
