"""The only sender of requests to the identity provider that signs admins on."""

from __future__ import annotations

import asyncio
import warnings
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from ignition_broker.broker.admins.id_tokens import key_set
from ignition_broker.broker.callers.json_web_keys import PublicKey
from ignition_broker.broker.errors import IdentityProviderUnavailable, SignOnFailed
from ignition_broker.clock import Clock
from ignition_broker.json_reading import read_json
from ignition_broker.oauth.tokens import AuthorizationCode, ClientSecret, CodeVerifier
from ignition_broker.outbound.tls import client_context
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
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


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

    def __init__(self, client: SignOnClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._connecting: dict[str, Any] = {
            "timeout": TIMEOUT_SECONDS,
            "follow_redirects": False,
            "trust_env": False,
            "verify": client_context("http/1.1"),
        }
        self._metadata: ProviderMetadata | None = None
        self._keys: tuple[PublicKey, ...] | None = None
        self._metadata_read_at = 0.0
        self._keys_read_at = 0.0
        self._asking = asyncio.Lock()
        self._failure = ""
        self._failed_until = 0.0

    async def metadata(self) -> ProviderMetadata:
        """Asked for once, however many wait; a failure is believed for a few seconds."""
        async with self._asking:
            if self._metadata is not None and not self._is_old(self._metadata_read_at):
                return self._metadata
            if self._clock.monotonic() < self._failed_until:
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
        address = self._client.issuer.rstrip("/") + "/.well-known/openid-configuration"
        return _metadata(await self._fetch(address), self._client.issuer)

    async def keys(self) -> tuple[PublicKey, ...]:
        if self._keys is None or self._is_old(self._keys_read_at):
            return await self.newest_keys()
        return self._keys

    async def newest_keys(self) -> tuple[PublicKey, ...]:
        """Past what is held: a token is signed by a key that is not in there."""
        document = await self._fetch((await self.metadata()).jwks_uri)
        try:
            self._keys = key_set(document)
        except ValueError as error:
            raise _nonsense("its keys (jwks_uri) are no JWK set") from error
        self._keys_read_at = self._clock.monotonic()
        return self._keys

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
        async with self._oauth(metadata) as oauth:
            url, _state = oauth.create_authorization_url(
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
            async with asyncio.timeout(TIMEOUT_SECONDS), self._oauth(metadata) as oauth:
                answer = await oauth.fetch_token(
                    metadata.token_endpoint,
                    grant_type="authorization_code",
                    code=code.reveal(),
                    code_verifier=verifier.reveal(),
                )
        except OAuthError as error:
            raise SignOnFailed(
                f"The identity provider refused the code ({_shown(error.error)}).",
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
            **self._connecting,
        )

    async def _fetch(self, address: str) -> bytes:
        try:
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                httpx.AsyncClient(**self._connecting) as http,
            ):
                answer = await http.get(address, headers={"Accept": "application/json"})
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            raise _unreachable(error) from error
        if answer.status_code != 200:
            raise IdentityProviderUnavailable(
                f"The identity provider answered {answer.status_code} to {address}."
            )
        return answer.content

    def _is_old(self, read_at: float) -> bool:
        return self._clock.monotonic() - read_at > METADATA_LIFETIME_SECONDS


def _metadata(document: bytes, issuer: str) -> ProviderMetadata:
    try:
        fields: Any = read_json(document)
        named = fields["issuer"]
        methods = fields.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        is_basic = "client_secret_basic" in methods
        metadata = ProviderMetadata(
            authorization_endpoint=fields["authorization_endpoint"],
            token_endpoint=fields["token_endpoint"],
            jwks_uri=fields["jwks_uri"],
            client_authentication="client_secret_basic" if is_basic else "client_secret_post",
            sends_issuer=fields.get("authorization_response_iss_parameter_supported") is True,
        )
        is_safe = all(
            _is_safe(endpoint)
            for endpoint in (
                metadata.authorization_endpoint,
                metadata.token_endpoint,
                metadata.jwks_uri,
            )
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _nonsense("its metadata lack what OpenID Connect Discovery asks for") from error
    if named != issuer:
        raise _nonsense(
            "its metadata name another issuer; BROKER_OIDC_ISSUER must be that name to the letter"
        )
    if not is_safe:
        raise _nonsense("an endpoint in its metadata is not https")
    return metadata


def _is_safe(endpoint: str) -> bool:
    parts = urlsplit(endpoint)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


def _unreachable(error: Exception) -> IdentityProviderUnavailable:
    return IdentityProviderUnavailable(
        f"The identity provider can't be reached ({shortage_or_name(error)})."
    )


def _nonsense(reason: str) -> IdentityProviderUnavailable:
    return IdentityProviderUnavailable(f"The identity provider can't be used: {reason}.")


def _shown(text: object) -> str:
    return "".join(c for c in str(text) if c.isprintable())[:100]
