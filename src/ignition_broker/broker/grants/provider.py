"""The only sender of token requests: it alone knows sent from not sent.

Every try ends in one of a closed set of outcomes, so that the refresh has nothing to guess.

Over 250 lines: the outcome of a request is judged where it was sent.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, assert_never

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
    refuses_client,
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
from ignition_broker.outbound.answers import Answer
from ignition_broker.outbound.errors import ExchangeError


class RequestBuilder(Protocol):
    """Makes one request that can be authenticated by either of two secrets."""

    def __call__(self, *, authenticate: ClientAuthentication) -> OAuthRequest: ...


@dataclass(frozen=True, slots=True)
class Registration:
    """How this service is known at the provider, and where the provider's endpoints are.

    ``authenticate`` has ``client_secret``, the newest. ``previous``, during a rotation, is the
    secret before it and its way, which is tried where the provider does not know the newest.
    """

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
    previous: tuple[ClientSecret, ClientAuthentication] | None = None


class Provider:
    """``timeout_seconds``: how long callers wait for one request, connecting included.
    ``patience_seconds``: how long the request itself goes on, since its answer may hold the only
    good refresh token. ``on_secret_refused``: called for each request whose newest client secret
    the provider refused, and that the one before was tried for."""

    def __init__(
        self,
        endpoints: Endpoints,
        registration: Registration,
        clock: Clock,
        breaker: CircuitBreaker,
        *,
        timeout_seconds: float,
        patience_seconds: float,
        observe: Callable[[str, Outcome, float], None] = lambda _kind, _outcome, _seconds: None,
        on_secret_refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._endpoints = endpoints
        self._registration = registration
        self._clock = clock
        self._observe = observe
        self._on_secret_refused = on_secret_refused
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
        build = partial(
            code_exchange_request,
            registration.token_url,
            code=code,
            redirect_uri=registration.redirect_uri,
            verifier=verifier,
            body_format=registration.body_format,
        )
        return await self._ask("authorization_code", build, None, code, verifier)

    async def refresh(
        self, refresh_token: RefreshToken, *, may_send: Callable[[], bool]
    ) -> Outcome:
        """``may_send`` is asked right before the request goes out; if not, it is `Withdrawn`."""
        registration = self._registration
        build = partial(
            refresh_request,
            registration.token_url,
            refresh_token=refresh_token,
            body_format=registration.body_format,
        )
        return await self._ask("refresh_token", build, may_send, refresh_token)

    @property
    def can_revoke(self) -> bool:
        return self._registration.revoke_url is not None

    async def revoke(self, token: RefreshToken | AccessToken) -> RevocationVerdict:
        """What the provider said to it (RFC 7009 section 2.2)."""
        registration = self._registration
        if registration.revoke_url is None:
            return RevocationUnanswered("IGNITION_REVOKE_URL is not set")
        build = partial(revocation_request, registration.revoke_url, token=token)
        revoking = asyncio.create_task(self._answered(build, None))
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
        build: RequestBuilder,
        may_send: Callable[[], bool] | None,
        *sent: Secret,
    ) -> Outcome:
        """One that goes on past the timeout counts as failed then, and once; that it is answered
        after all counts as a success."""
        started = self._clock.monotonic()
        whose = _fingerprint(sent[0])
        previous = self._registration.previous
        kept = (self._registration.client_secret, *(previous[:1] if previous else ()))
        secrets = (*kept, *sent)
        sending = asyncio.create_task(self._send(build, may_send, secrets))
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
        self._observe(kind, outcome, self._clock.monotonic() - started)
        return outcome

    async def _send(
        self,
        build: RequestBuilder,
        may_send: Callable[[], bool] | None,
        secrets: Sequence[Secret],
    ) -> Outcome:
        requested_at = self._clock.monotonic()
        try:
            answer = await self._answered(build, may_send)
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

    async def _answered(self, build: RequestBuilder, may_send: Callable[[], bool] | None) -> Answer:
        """The answer to the newest client secret, or to the one before where the provider refuses
        the newest. Raises `ExchangeError`.

        The second request is safe, whatever it carries: a provider authenticates the client before
        it looks at the code, the refresh token or the token to be revoked, and ``invalid_client``
        says that this failed (RFC 6749 sections 3.2.1 and 5.2, RFC 7009 section 2.1). So the first
        request has spent nothing.
        """
        registration = self._registration
        answer = await self._endpoints.post(
            build(authenticate=registration.authenticate), may_send=may_send
        )
        if registration.previous is None or not refuses_client(answer.status, answer.body):
            return answer
        self._on_secret_refused()
        _secret, authenticate = registration.previous
        return await self._endpoints.post(build(authenticate=authenticate), may_send=may_send)


def _fingerprint(secret: Secret) -> str:
    """Tells one grant's requests from another's, and nothing more."""
    return hashlib.sha256(secret.reveal().encode()).hexdigest()
