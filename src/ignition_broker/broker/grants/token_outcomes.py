"""What can come of a token request: a closed set, so that nobody who records it has to guess."""

from __future__ import annotations

from dataclasses import dataclass

from ignition_broker.oauth.tokens import RefreshTokenOnly, TokenAnswer


@dataclass(frozen=True, slots=True)
class Renewed:
    """``requested_at``: when the request went out, from which the lifetime counts; on the
    monotonic clock."""

    answer: TokenAnswer
    requested_at: float


@dataclass(frozen=True, slots=True)
class Rotated:
    """A refresh token came, and no access token that could be handed out: ``reason`` says why."""

    answer: RefreshTokenOnly
    requested_at: float


@dataclass(frozen=True, slots=True)
class Refused:
    """``invalid_grant``, or what `Registration.refusal_codes` names beside it: for good."""

    description: str


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """The provider does not know this broker's client, or its secret: the operator's to mend."""

    error: str
    description: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The provider rejected the request, and blamed neither the grant nor the client for it.

    ``error`` is the OAuth error's code; None where there was none.
    """

    status: int
    error: str | None
    description: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """No connection, so the provider has seen nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """It came to be sent too late, and was not."""


@dataclass(frozen=True, slots=True)
class Throttled:
    """429 or 503: the provider answered that it did not carry it out."""

    status: int
    retry_after_seconds: float | None


@dataclass(frozen=True, slots=True)
class AnswerLost:
    """It went out, and no answer came or a 5xx that is no 503: the provider may have carried it
    out."""

    reason: str


@dataclass(frozen=True, slots=True)
class NoToken:
    """It was answered, by something that is no token and no OAuth error."""

    reason: str


Outcome = (
    Renewed
    | Rotated
    | Refused
    | Misconfigured
    | Rejected
    | NotSent
    | Withdrawn
    | Throttled
    | AnswerLost
    | NoToken
)
