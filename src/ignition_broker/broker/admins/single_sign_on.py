"""Single sign-on: an admin signs on at the identity provider (OpenID Connect), begun by `begin` and
ended by `finish` when its callback comes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ignition_broker.broker.admins.id_tokens import (
    Claims,
    ExpectedToken,
    IdTokenRefused,
    KeyUnknown,
    judge_id_token,
)
from ignition_broker.broker.errors import NotAnAdmin, SignOnFailed
from ignition_broker.clock import Clock
from ignition_broker.model import AuditEvent
from ignition_broker.oauth.callback import (
    EXPECT_NO_ISSUER,
    CallbackError,
    judge_callback,
    state_of,
)
from ignition_broker.oauth.pkce import new_code_verifier
from ignition_broker.oauth.tokens import CodeVerifier
from ignition_broker.storage import audit
from ignition_broker.storage.database import Database

if TYPE_CHECKING:
    from ignition_broker.broker.admins.identity_provider import IdentityProvider
    from ignition_broker.jwks.public_keys import PublicKey

SIGN_ON_SECONDS: Final = 600


@dataclass(frozen=True, slots=True)
class PendingSignOn:
    """What the browser keeps, encrypted, from the start of a sign-on until its callback.

    Attributes:
        return_to: the console's page that comes afterwards.
        begun_at: seconds since 1970.
        must_authenticate: the provider has to ask for the password again.
    """

    state: str
    nonce: str
    code_verifier: CodeVerifier
    return_to: str
    begun_at: float
    must_authenticate: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """An admin as the identity provider's ID token describes them.

    Attributes:
        admin_groups: those of the admins' groups that they are in.
        sign_on_hash: identifies this sign-on, so that it begins one session only.
        authenticated_seconds_ago: None where the provider did not say.
    """

    issuer: str
    subject: str
    name: str | None
    admin_groups: tuple[str, ...]
    sign_on_hash: bytes
    authenticated_seconds_ago: float | None

    @property
    def actor(self) -> str:
        """Their name in the audit trail. No API key can have it, and it ends with the subject,
        whatever name they chose."""
        subject = f"oidc:{self.subject}"
        return f"{self.name} ({subject})" if self.name else subject


class SingleSignOn:
    """Signs admins on at one identity provider.

    Args:
        issuer: the provider's issuer identifier.
        client_id: this broker's, at the provider.
        admin_groups: the groups whose members are admins.
        groups_claim: the claim of the ID token that names a person's groups.
    """

    def __init__(
        self,
        database: Database,
        provider: IdentityProvider,
        clock: Clock,
        *,
        issuer: str,
        client_id: str,
        admin_groups: Sequence[str],
        groups_claim: str,
    ) -> None:
        self._database = database
        self._provider = provider
        self._clock = clock
        self._issuer = issuer
        self._client_id = client_id
        self._admin_groups = tuple(admin_groups)
        self._groups_claim = groups_claim

    async def begin(self, return_to: str, *, must_authenticate: bool) -> tuple[str, PendingSignOn]:
        """Begins a sign-on (OpenID Connect Core section 3.1.2.1).

        Args:
            return_to: the console's page that comes afterwards.
            must_authenticate: the provider has to ask for the password again.

        Returns:
            The provider's URL to send the browser to, and what the browser has to keep.

        Raises:
            IdentityProviderUnavailable: its metadata can't be had.
        """
        pending = PendingSignOn(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            code_verifier=new_code_verifier(),
            return_to=return_to,
            begun_at=self._now(),
            must_authenticate=must_authenticate,
        )
        url = await self._provider.authorization_url(
            state=pending.state,
            nonce=pending.nonce,
            verifier=pending.code_verifier,
            must_authenticate=must_authenticate,
        )
        return url, pending

    async def finish(
        self,
        query: Sequence[tuple[str, str]],
        pending: PendingSignOn | None,
        *,
        request_id: str | None,
    ) -> Identity:
        """Ends a sign-on with the ``query`` of its callback.

        Args:
            pending: what the browser kept; None: nothing.

        Returns:
            The admin who signed on.

        Raises:
            SignOnFailed: the callback, or the ID token, is not what this sign-on expects.
            NotAnAdmin: the person is in none of the admins' groups.
            IdentityProviderUnavailable: it can't be asked just now.
        """
        state = state_of(query)
        # Compared as bytes: a made-up state may hold characters that are not ASCII.
        if (
            pending is None
            or state is None
            or not hmac.compare_digest(state.encode(), pending.state.encode())
        ):
            raise SignOnFailed(
                "It was not begun in this browser, was used already, or another one was begun "
                "since."
            )
        if not 0 <= self._now() - pending.begun_at <= SIGN_ON_SECONDS:
            raise SignOnFailed("It took too long: it has to end within ten minutes.")
        metadata = await self._provider.metadata()
        # An `iss` is compared even where the metadata promise none (RFC 9207 section 2.4).
        has_issuer = metadata.sends_issuer or any(name == "iss" for name, _value in query)
        verdict = judge_callback(
            query, expected_issuer=self._issuer if has_issuer else EXPECT_NO_ISSUER
        )
        if isinstance(verdict, CallbackError):
            reason = f": {verdict.description}" if verdict.description else ""
            raise SignOnFailed(f"The identity provider signed nobody on ({verdict.error}){reason}.")
        id_token = await self._provider.exchange_code(verdict, pending.code_verifier)
        claims = await self._claims(id_token, pending)
        return await self._admin(claims, pending, request_id)

    async def _claims(self, id_token: str, pending: PendingSignOn) -> Claims:
        expected = ExpectedToken(
            issuer=self._issuer,
            client_id=self._client_id,
            nonce=pending.nonce,
            authenticated_since=pending.begun_at if pending.must_authenticate else None,
        )

        def judge(keys: Sequence[PublicKey]) -> Claims:
            return judge_id_token(
                id_token, keys, expected, groups_claim=self._groups_claim, now=self._now()
            )

        try:
            try:
                return judge(await self._provider.keys())
            except KeyUnknown:
                return judge(await self._provider.newest_keys())
        except IdTokenRefused as error:
            raise SignOnFailed(f"The identity provider's ID token is refused: {error}") from error

    async def _admin(
        self, claims: Claims, pending: PendingSignOn, request_id: str | None
    ) -> Identity:
        age = None if claims.auth_time is None else max(0.0, self._now() - claims.auth_time)
        identity = Identity(
            issuer=self._issuer,
            subject=claims.subject,
            name=claims.name,
            admin_groups=tuple(name for name in self._admin_groups if name in claims.groups),
            sign_on_hash=hashlib.sha256(pending.state.encode()).digest(),
            authenticated_seconds_ago=age,
        )
        if identity.admin_groups:
            return identity
        detail: dict[str, object] = {
            "by": "single sign-on",
            "issuer": self._issuer,
            "subject": claims.subject,
            "reason": "in none of the groups that may administer",
        }
        event = AuditEvent("sign_in", "denied", identity.actor, None, request_id, detail)
        async with self._database.begin() as connection:
            await audit.append(connection, event)
        hint = (
            ""
            if claims.groups
            else f" Your ID token names no groups at all ({self._groups_claim})."
        )
        raise NotAnAdmin(
            f"You are signed on as {identity.actor}, but in none of the groups that may "
            f"administer.{hint}"
        )

    def _now(self) -> float:
        return self._clock.now().timestamp()
