"""What an answer of the token endpoint comes to, where it is no token. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ignition_broker.broker.grants.token_outcomes import (
    AnswerLost,
    Misconfigured,
    NoToken,
    NotSent,
    Outcome,
    Refused,
    Rejected,
    Withdrawn,
)
from ignition_broker.oauth.answers import NotOAuth, OAuthError, plain_code
from ignition_broker.oauth.tokens import Secret
from ignition_broker.outbound.answers import Answer
from ignition_broker.outbound.errors import (
    ExchangeError,
    NoConnectionFree,
    RequestWithdrawn,
    Unreachable,
)

_REFUSAL = "invalidgrant"
_CLIENT_ERRORS = frozenset({"invalidclient", "unauthorizedclient"})


def refused(
    verdict: OAuthError, refusal_codes: frozenset[str], secrets: Sequence[Secret]
) -> Refused | Misconfigured | Rejected | AnswerLost:
    """What an OAuth error means (RFC 6749 section 5.2).

    Codes are compared without case and punctuation, which providers vary.

    Args:
        refusal_codes: further codes that mean ``invalid_grant``, as `plain_code` has them.
        secrets: what was sent; masked in the outcome's texts.
    """
    error = _masked(verdict.error, secrets)
    description = _masked(verdict.description, secrets)
    code = plain_code(verdict.error)
    if code == _REFUSAL:
        return Refused(description)
    if code in refusal_codes:
        return Refused(f"{error}: {description}".rstrip(": "))
    if verdict.status >= 500:
        return _server_error(verdict.status)
    if code in _CLIENT_ERRORS:
        return Misconfigured(error, description)
    return Rejected(verdict.status, error, description)


def unreadable(answer: Answer, verdict: NotOAuth) -> Outcome:
    """Of an answer that bears neither a token nor an OAuth error."""
    if answer.broke_off is not None:
        return unanswered(answer.broke_off)
    reason = verdict.reason if answer.flaw is None else f"{verdict.reason}; {answer.flaw}"
    match verdict.status:
        case 401:
            # RFC 6749 section 5.2 has this status for the client's authentication alone.
            return Misconfigured("status 401", reason)
        case status if status >= 500:
            return _server_error(status)
        case status if 300 <= status < 500:
            return Rejected(status, None, reason)
        case _:
            return NoToken(reason)


def _server_error(status: int) -> AnswerLost:
    return AnswerLost(f"Ignition's token endpoint answers status {status}")


def unanswered(error: ExchangeError) -> NotSent | Withdrawn | AnswerLost:
    reason = error.detail.rstrip(".")
    match error:
        case RequestWithdrawn():
            return Withdrawn()
        case NoConnectionFree() | Unreachable(was_sent=False):
            return NotSent(reason)
        case _:
            return AnswerLost(reason)


def _masked(text: str, secrets: Sequence[Secret]) -> str:
    """A provider that repeats what it was sent must not bring it into a log or an error."""
    for secret in secrets:
        if secret.reveal():
            text = text.replace(secret.reveal(), "…")
    return text
