"""The only sender of token requests: it alone knows sent from not sent.

Every try ends in one of a closed set of outcomes, so that the refresh has nothing to guess.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from ignition_broker.broker.grants.circuit_breaker import CircuitBreaker
from ignition_broker.broker.grants.ignition_client import Endpoints
from ignition_broker.broker.grants.token_answers import refused, unanswered, unreadable
from ignition_broker.broker.grants.token_outcomes import (
    AnswerLost,
    NotSent,
    Outcome,
    Renewed,
    Rotated,
    Throttled,
    Withdrawn,
)
from ignition_broker.clock import Clock
from ignition_broker.deadlines import is_done_within
from ignition_broker.oauth.answers import (
    NotOAuth,
    OAuthError,
    Overloaded,
    judge_token_answer,
)
from ignition_broker.oauth.requests import (
    BodyFormat,
    ClientAuthentication,
    OAuthRequest,
    authorization_url,
    code_exchange_request,
    refresh_request,
    revocation_request,
)
from ignition_broker.oauth.revocation import (
    RevocationUnanswered,
    RevocationVerdict,
    judge_revocation_answer,
)
from ignition_broker.oauth.tokens import (
    AccessToken,
    AuthorizationCode,
    ClientSecret,
    CodeVerifier,
    RefreshToken,
    RefreshTokenOnly,
    Secret,
    TokenAnswer,
)
from ignition_broker.outbound.errors import (
    ExchangeError,
)


@dataclass(frozen=True, slots=True)
class Registration:
    """How this service is known at the provider, and where the provider's endpoints are."""

    client_id: str
    redirect_uri: str
    scope: str
    authorize_url: str
    token_url: str
    revoke_url: str | None
    client_secret: ClientSecret
    authenticate: ClientAuthentication
    body_format: BodyFormat
    refusal_codes: frozenset[str] = frozenset()
    """Further error codes that mean ``invalid_grant``, as `plain_code` has them."""


class Provider:
    """``timeout_seconds``: how long callers wait for one request, connecting included.
    ``patience_seconds``: how long the request itself goes on, since its answer may hold the only
    good refresh token."""

    def __init__(
        self,
        endpoints: Endpoints,
        registration: Registration,
        clock: Clock,
        breaker: CircuitBreaker,
        *,
        timeout_seconds: float,
        patience_seconds: float,
        observe: Callable[[str, str, float], None] = lambda _kind, _outcome, _seconds: None,
    ) -> None:
        self._endpoints = endpoints
        self._registration = registration
        self._clock = clock
        self._observe = observe
        self.timeout_seconds = timeout_seconds
        self.patience_seconds = patience_seconds
        self._breaker = breaker

    def authorization_url(self, *, state: str, verifier: CodeVerifier) -> str:
        registration = self._registration
        return authorization_url(
            registration.authorize_url,
            client_id=registration.client_id,
            redirect_uri=registration.redirect_uri,
            scope=registration.scope,
            state=state,
            verifier=verifier,
        )

    async def exchange_code(self, code: AuthorizationCode, verifier: CodeVerifier) -> Outcome:
        registration = self._registration
        request = code_exchange_request(
            registration.token_url,
            code=code,
            redirect_uri=registration.redirect_uri,
            verifier=verifier,
            authenticate=registration.authenticate,
            body_format=registration.body_format,
        )
        return await self._ask("authorization_code", request, None, code, verifier)

    async def refresh(
        self, refresh_token: RefreshToken, *, may_send: Callable[[], bool]
    ) -> Outcome:
        """``may_send`` is asked right before the request goes out; if not, it is `Withdrawn`."""
        registration = self._registration
        request = refresh_request(
            registration.token_url,
            refresh_token=refresh_token,
            authenticate=registration.authenticate,
            body_format=registration.body_format,
        )
        return await self._ask("refresh_token", request, may_send, refresh_token)

    @property
    def can_revoke(self) -> bool:
        return self._registration.revoke_url is not None

    async def revoke(self, token: RefreshToken | AccessToken) -> RevocationVerdict:
        """What the provider said to it (RFC 7009 section 2.2)."""
        registration = self._registration
        if registration.revoke_url is None:
            return RevocationUnanswered("IGNITION_REVOKE_URL is not set")
        request = revocation_request(
            registration.revoke_url,
            token=token,
            authenticate=registration.authenticate,
        )
        revoking = asyncio.create_task(self._endpoints.post(request))
        try:
            if not await is_done_within(revoking, self.timeout_seconds):
                return RevocationUnanswered("no answer came in time")
            answer = revoking.result()
        except ExchangeError as error:
            return RevocationUnanswered(error.detail.rstrip("."))
        finally:
            revoking.cancel()
        return judge_revocation_answer(answer.status, answer.headers, now=self._clock.now())

    async def _ask(
        self,
        kind: str,
        request: OAuthRequest,
        may_send: Callable[[], bool] | None,
        *sent: Secret,
    ) -> Outcome:
        """One that goes on past the timeout counts as failed then, and once; that it is answered
        after all counts as a success."""
        started = self._clock.monotonic()
        whose = _fingerprint(sent[0])
        secrets = (self._registration.client_secret, *sent)
        sending = asyncio.create_task(self._send(request, may_send, secrets))
        try:
            is_late = not await is_done_within(sending, self.timeout_seconds)
            if is_late:
                self._breaker.failed(whose)
            more_seconds = self.patience_seconds - self.timeout_seconds
            if is_late and not await is_done_within(sending, more_seconds):
                patience = f"{self.patience_seconds:g} s"
                outcome: Outcome = AnswerLost(f"Ignition gave no answer within {patience}")
            else:
                outcome = sending.result()
        finally:
            sending.cancel()
        match outcome:
            case Withdrawn():
                pass
            case NotSent() | Throttled() | AnswerLost() if is_late:
                pass
            case Throttled(retry_after_seconds=asked):
                self._breaker.failed(whose, asked_seconds=asked)
            case NotSent() | AnswerLost():
                self._breaker.failed(whose)
            case _:
                self._breaker.succeeded()
        self._observe(kind, type(outcome).__name__, self._clock.monotonic() - started)
        return outcome

    async def _send(
        self,
        request: OAuthRequest,
        may_send: Callable[[], bool] | None,
        secrets: Sequence[Secret],
    ) -> Outcome:
        requested_at = self._clock.monotonic()
        try:
            answer = await self._endpoints.post(request, may_send=may_send)
        except ExchangeError as error:
            return unanswered(error)
        verdict = judge_token_answer(
            answer.status,
            answer.headers,
            answer.body,
            now=self._clock.now(),
            is_whole=answer.broke_off is None,
            sent=secrets,
        )
        match verdict:
            case TokenAnswer():
                return Renewed(verdict, requested_at)
            case RefreshTokenOnly():
                return Rotated(verdict, requested_at)
            case OAuthError():
                return refused(verdict, self._registration.refusal_codes, secrets)
            case Overloaded():
                return Throttled(verdict.status, verdict.retry_after_seconds)
            case NotOAuth():
                return unreadable(answer, verdict)
            case _:
                assert_never(verdict)


def _fingerprint(secret: Secret) -> str:
    """Tells one grant's requests from another's, and nothing more."""
    return hashlib.sha256(secret.reveal().encode()).hexdigest()
