"""Judges the authorization response that a browser brings to the redirect URI. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ignition_broker.oauth.tokens import AuthorizationCode
from ignition_broker.printable import printable

_LONGEST_SHOWN = 300


class ExpectNoIssuer:
    """Turns the comparison of ``iss`` off, for a provider that does not send it."""


EXPECT_NO_ISSUER: Final = ExpectNoIssuer()


@dataclass(frozen=True, slots=True)
class CallbackError:
    """An error from the provider (RFC 6749 section 4.1.2.1), or our own about its response."""

    error: str
    description: str


def state_of(query: Sequence[tuple[str, str]]) -> str | None:
    """The parameter ``state``; None unless it was sent exactly once."""
    return _single(query, "state")


def judge_callback(
    query: Sequence[tuple[str, str]], *, expected_issuer: str | ExpectNoIssuer
) -> AuthorizationCode | CallbackError:
    """Returns the code, or why there is none (RFC 6749 section 4.1.2, RFC 9207 section 2.4).

    ``iss`` is checked first, because nothing in another server's response can be trusted.
    A parameter sent twice is malformed, and one without a value counts as not sent (RFC 6749
    section 3.1).
    """
    if not isinstance(expected_issuer, ExpectNoIssuer):
        issuer = _single(query, "iss")
        if issuer is None or not hmac.compare_digest(issuer.encode(), expected_issuer.encode()):
            return CallbackError(
                "issuer_mismatch",
                "The answer did not come from the expected authorization server (iss).",
            )
    error = next((value for name, value in query if name == "error" and value), None)
    if error is not None:
        description = _single(query, "error_description") or ""
        return CallbackError(
            printable(error, _LONGEST_SHOWN), printable(description, _LONGEST_SHOWN)
        )
    code = _single(query, "code")
    if not code:
        return CallbackError("missing_code", "The answer held no authorization code.")
    return AuthorizationCode(code)


def _single(query: Sequence[tuple[str, str]], name: str) -> str | None:
    values = [value for key, value in query if key == name and value]
    return values[0] if len(values) == 1 else None
