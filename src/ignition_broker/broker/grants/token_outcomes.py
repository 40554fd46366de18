"""The possible outcomes of a token request, a closed set."""

from __future__ import annotations

from dataclasses import dataclass

from ignition_broker.oauth.tokens import RefreshTokenOnly, TokenAnswer


@dataclass(frozen=True, slots=True)
class Renewed:
    """Tokens came. ``requested_at``: when the request went out (monotonic clock); lifetimes count
    from then."""

    answer: TokenAnswer
    requested_at: float


@dataclass(frozen=True, slots=True)
class Rotated:
    """A refresh token came without an access token that could be handed out.

    ``requested_at``: as in `Renewed`.
    """

    answer: RefreshTokenOnly
    requested_at: float


@dataclass(frozen=True, slots=True)
class Refused:
    """The grant is refused for good: ``invalid_grant`` (RFC 6749 section 5.2), or a code that
    `Registration.refusal_codes` names."""

    description: str


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """The provider refuses this broker's client or its secret; an operator has to mend it."""

    error: str
    description: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The provider rejected the request for another reason than the grant or the client.

    ``error``: the code of the OAuth error, if there was one.
    """

    status: int
    error: str | None
    description: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """There was no connection, so the provider has seen nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Its turn came too late for its lease, so it was not sent."""


@dataclass(frozen=True, slots=True)
class Throttled:
    """429 or 503: the provider says that it did not carry the request out."""

    status: int
    retry_after_seconds: float | None


@dataclass(frozen=True, slots=True)
class AnswerLost:
    """The request went out, and no answer came, or a 5xx other than 503: the provider may have
    carried it out."""

    reason: str


@dataclass(frozen=True, slots=True)
class NoToken:
    """The answer is neither a token nor an OAuth error."""

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
