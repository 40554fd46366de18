"""The only sender of requests to the identity provider that signs admins on."""

from __future__ import annotations

import asyncio
import warnings
from dataclasses import dataclass
from typing import Any, Final

import httpx

from ignition_broker.broker.admins.id_tokens import key_set
from ignition_broker.broker.errors import IdentityProviderUnavailable, SignOnFailed
from ignition_broker.clock import Clock
from ignition_broker.deadlines import result_within
from ignition_broker.jwks.discovery import (
    FetchFailed,
    MetadataRefused,
    OtherIssuer,
    endpoints_of,
    fetch,
    metadata_url,
    parsed_metadata,
)
from ignition_broker.jwks.key_set_cache import KeySetCache, KeyTimes
from ignition_broker.jwks.public_keys import PublicKey
from ignition_broker.oauth.tokens import AuthorizationCode, ClientSecret, CodeVerifier
from ignition_broker.outbound.client import (
    ClientLimits,
    PoolTransport,
    exchange_error,
    http_client,
)
from ignition_broker.outbound.egress import Egress
from ignition_broker.printable import printable
from ignition_broker.system_errors import shortage_or_name

with warnings.catch_warnings():
    # It would rather have the successor of httpx, and says so on stderr at every start.
    from authlib.deprecate import AuthlibDeprecationWarning

    warnings.simplefilter("ignore", AuthlibDeprecationWarning)
    from authlib.integrations.base_client import OAuthError
    from authlib.integrations.httpx_client import AsyncOAuth2Client

METADATA_LIFETIME_SECONDS: Final = 3600.0
FAILURE_LIFETIME_SECONDS: Final = 3.0
TIMEOUT_SECONDS: Final = 10.0
LARGEST_ANSWER_BYTES: Final = 1 << 20
CONNECTIONS: Final = 20
_TIMES: Final = KeyTimes(
    lifetime_seconds=METADATA_LIFETIME_SECONDS,
    stale_seconds=METADATA_LIFETIME_SECONDS,
    pause_seconds=0,
    patience_seconds=None,
)
_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")


@dataclass(frozen=True, slots=True)
class SignOnClient:
    """This service as it is registered at the identity provider."""

    issuer: str
    client_id: str
    client_secret: ClientSecret
    redirect_uri: str
    scope: str


@dataclass(frozen=True, slots=True)
class ProviderMetadata:
    """OpenID Connect Discovery 1.0 section 3; ``sends_issuer``: RFC 9207 section 3."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    client_authentication: str
    sends_issuer: bool


class IdentityProvider:
    """Metadata and keys are held for an hour. Raises `IdentityProviderUnavailable`.

    Its connections are its own and few: strangers can begin sign-ons, and what they make wait must
    not be what renews grants.
    """

    def __init__(self, client: SignOnClient, clock: Clock, egress: Egress | None = None) -> None:
        self._client = client
        self._clock = clock
        limits = ClientLimits(
            connections=CONNECTIONS,
            connect_timeout_seconds=TIMEOUT_SECONDS,
            largest_answer_bytes=LARGEST_ANSWER_BYTES,
        )
        # Not closed: each request has a connection of its own, and closes it.
        self._transport = PoolTransport(limits, egress=egress, server="the identity provider")
        self._http = http_client(self._transport)
        self._keys = KeySetCache(client.issuer, self._read_key_set, key_set, clock, _TIMES)
        self._metadata: ProviderMetadata | None = None
        self._metadata_read_at = 0.0
        self._asking = asyncio.Lock()
        self._failure = ""
        self._failed_until = 0.0

    async def metadata(self) -> ProviderMetadata:
        """Asked for once, however many wait; a failure is believed for a few seconds."""
        async with self._asking:
            now = self._clock.monotonic()
            age = now - self._metadata_read_at
            if self._metadata is not None and age <= METADATA_LIFETIME_SECONDS:
                return self._metadata
            if now < self._failed_until:
                raise IdentityProviderUnavailable(self._failure)
            try:
                self._metadata = await self._fetch_metadata()
            except IdentityProviderUnavailable as error:
                self._failure = error.detail
                self._failed_until = self._clock.monotonic() + FAILURE_LIFETIME_SECONDS
                raise
            self._metadata_read_at = self._clock.monotonic()
            return self._metadata

    async def _fetch_metadata(self) -> ProviderMetadata:
        issuer = self._client.issuer
        try:
            document = await fetch(
                self._http, metadata_url(issuer), timeout_seconds=TIMEOUT_SECONDS
            )
            return _metadata(parsed_metadata(document), issuer)
        except OtherIssuer as error:
            raise _nonsense(
                f"{error}; BROKER_OIDC_ISSUER must be that name to the letter"
            ) from error
        except MetadataRefused as error:
            raise _nonsense(str(error)) from error
        except FetchFailed as error:
            reason = str(error).rstrip(".")
            raise _nonsense(f"its metadata can't be had: {reason}") from error

    async def keys(self) -> tuple[PublicKey, ...]:
        await self._keys.freshen()
        keys = self._keys.held
        if keys is None:
            raise _nonsense(f"its keys (jwks_uri) can't be had: {self._keys.failure}")
        return keys

    async def newest_keys(self) -> tuple[PublicKey, ...]:
        """Past what is held: a token is signed by a key that is not in there."""
        await self._keys.renew()
        if self._keys.failure is not None:
            raise _nonsense(f"its keys (jwks_uri) can't be had: {self._keys.failure}")
        return await self.keys()

    async def _read_key_set(self) -> bytes:
        try:
            url = (await self.metadata()).jwks_uri
        except IdentityProviderUnavailable as error:
            raise FetchFailed(error.detail) from error
        return await fetch(self._http, url, timeout_seconds=TIMEOUT_SECONDS)

    async def authorization_url(
        self,
        *,
        state: str,
        nonce: str,
        verifier: CodeVerifier,
        must_authenticate: bool,
    ) -> str:
        """Where the browser is sent (OpenID Connect Core 1.0 section 3.1.2.1, RFC 7636)."""
        metadata = await self.metadata()
        more = {"prompt": "login", "max_age": 0} if must_authenticate else {}
        url, _state = self._oauth(metadata).create_authorization_url(
            metadata.authorization_endpoint,
            state=state,
            nonce=nonce,
            code_verifier=verifier.reveal(),
            **more,
        )
        return str(url)

    async def exchange_code(self, code: AuthorizationCode, verifier: CodeVerifier) -> str:
        """The ID token; raises `SignOnFailed` for a code that the provider refuses."""
        metadata = await self.metadata()
        try:
            asking = self._oauth(metadata).fetch_token(
                metadata.token_endpoint,
                grant_type="authorization_code",
                code=code.reveal(),
                code_verifier=verifier.reveal(),
            )
            answer = await result_within(asking, TIMEOUT_SECONDS)
        except OAuthError as error:
            raise SignOnFailed(
                f"The identity provider refused the code ({printable(str(error.error), 100)}).",
            ) from error
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            raise _unreachable(error) from error
        except (ValueError, RecursionError) as error:
            raise _nonsense("its token answer is not JSON") from error
        id_token = answer.get("id_token")
        if not isinstance(id_token, str):
            raise SignOnFailed(
                "The identity provider's answer held no ID token; the scope openid is needed "
                "(BROKER_OIDC_SCOPES)."
            )
        return id_token

    def _oauth(self, metadata: ProviderMetadata) -> Any:
        return AsyncOAuth2Client(
            self._client.client_id,
            self._client.client_secret.reveal(),
            token_endpoint_auth_method=metadata.client_authentication,
            scope=self._client.scope,
            redirect_uri=self._client.redirect_uri,
            code_challenge_method="S256",
            transport=self._transport,
            headers=dict(self._http.headers),
            timeout=self._http.timeout,
            follow_redirects=False,
            trust_env=False,
        )


def _metadata(fields: object, issuer: str) -> ProviderMetadata:
    """Raises `MetadataRefused`."""
    endpoints = endpoints_of(fields, issuer, _ENDPOINTS)
    more = fields if isinstance(fields, dict) else {}
    methods = more.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    is_basic = isinstance(methods, list | str) and "client_secret_basic" in methods
    return ProviderMetadata(
        authorization_endpoint=endpoints["authorization_endpoint"],
        token_endpoint=endpoints["token_endpoint"],
        jwks_uri=endpoints["jwks_uri"],
        client_authentication="client_secret_basic" if is_basic else "client_secret_post",
        sends_issuer=more.get("authorization_response_iss_parameter_supported") is True,
    )


def _unreachable(error: Exception) -> IdentityProviderUnavailable:
    if isinstance(error, httpx.TransportError):
        return IdentityProviderUnavailable(exchange_error(error).detail)
    return IdentityProviderUnavailable(
        f"The identity provider can't be reached ({shortage_or_name(error)})."
    )


def _nonsense(reason: str) -> IdentityProviderUnavailable:
    return IdentityProviderUnavailable(f"The identity provider can't be used: {reason}.")
