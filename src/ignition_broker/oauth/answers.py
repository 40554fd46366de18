"""Answers of the token endpoint, judged field by field and never fetched."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from ignition_broker.oauth.tokens import (
    ASSUMED_LIFETIME_SECONDS,
    LONGEST_LIFETIME_SECONDS,
    AccessToken,
    RefreshToken,
    TokenAnswer,
)

LONGEST_RETRY_AFTER_SECONDS = 3600.0
NOT_CARRIED_OUT = frozenset({429, 503})
"""The statuses by which a server says that it did nothing (RFC 6585 section 4, RFC 9110 section
15.6.4). Behind any other 5xx, the server may have carried the request out: a gateway gives 502 or
504 when it is the answer that it could not pass on."""
_LONGEST_DESCRIPTION = 300


@dataclass(frozen=True, slots=True)
class OAuthError:
    """An error response (RFC 6749 section 5.2)."""

    status: int
    error: str
    description: str


@dataclass(frozen=True, slots=True)
class Overloaded:
    """429 or 503: the request was not carried out; ``retry_after_seconds`` as the server asks."""

    status: int
    retry_after_seconds: float | None


@dataclass(frozen=True, slots=True)
class NotOAuth:
    """Neither a token nor an OAuth error; ``reason`` says what was wrong, without its content."""

    status: int
    reason: str


TokenVerdict = TokenAnswer | OAuthError | Overloaded | NotOAuth


def judge_token_answer(
    status: int, headers: Mapping[str, str], body: bytes, *, now: datetime
) -> TokenVerdict:
    """What the token endpoint said (RFC 6749 sections 5.1 and 5.2).

    ``headers`` are looked up in lower case; ``now`` turns a ``Retry-After`` date into seconds.
    """
    fields = _json_object(body)
    if status == 429 or status >= 500:
        return _judge_server_error(status, headers, fields, now=now)
    is_success = 200 <= status < 300
    if fields is None:
        said = "the body is no JSON object" if is_success else "no OAuth error"
        return NotOAuth(status, f"status {status}, {said}")
    error = fields.get("error")
    # Some servers say no with status 200.
    is_error = 400 <= status < 500 or (is_success and "access_token" not in fields)
    if is_error and isinstance(error, str) and error:
        return OAuthError(status, _printable(error), _printable(fields.get("error_description")))
    if is_success:
        return _judge_success(status, fields)
    return NotOAuth(status, f"status {status}, no OAuth error")


def _judge_server_error(
    status: int, headers: Mapping[str, str], fields: dict[str, object] | None, *, now: datetime
) -> TokenVerdict:
    """What can be read in the body counts for more than the status, which a gateway may have set:
    a token is kept, and ``invalid_grant`` is a refusal."""
    if fields is not None:
        answer = _judge_success(status, fields)
        if isinstance(answer, TokenAnswer):
            return answer
    if status in NOT_CARRIED_OUT:
        return Overloaded(status, retry_after_seconds(headers.get("retry-after"), now=now))
    if fields is not None and fields.get("error") == "invalid_grant":
        return OAuthError(status, "invalid_grant", _printable(fields.get("error_description")))
    return NotOAuth(status, f"status {status}")


def retry_after_seconds(value: str | None, *, now: datetime) -> float | None:
    """``Retry-After`` as seconds from ``now``, at most an hour (RFC 9110 section 10.2.3)."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), LONGEST_RETRY_AFTER_SECONDS)
    try:
        at = parsedate_to_datetime(value)
        seconds = (at - now).total_seconds()
    except (TypeError, ValueError):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)


def _judge_success(status: int, fields: dict[str, object]) -> TokenAnswer | NotOAuth:
    access_token = fields.get("access_token")
    if not isinstance(access_token, str) or not _is_header_safe(access_token):
        return NotOAuth(status, "access_token is missing or malformed")
    token_type = fields.get("token_type", "Bearer")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        return NotOAuth(status, "token_type is not Bearer")
    refresh_token = fields.get("refresh_token")
    if refresh_token is not None and not isinstance(refresh_token, str):
        return NotOAuth(status, "refresh_token is malformed")
    scope = fields.get("scope")
    return TokenAnswer(
        access_token=AccessToken(access_token),
        token_type="Bearer",
        lifetime_seconds=_lifetime_seconds(fields.get("expires_in")),
        refresh_token=RefreshToken(refresh_token) if refresh_token else None,
        scope=_printable(scope, longest=10_000) if isinstance(scope, str) else None,
    )


def _lifetime_seconds(expires_in: object) -> int:
    """What can be trusted of ``expires_in``: never more than it says, whatever its type.

    Absent or no number: the assumed lifetime. Zero or less: 0. Numbers in strings are taken.
    """
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float | str):
        return ASSUMED_LIFETIME_SECONDS
    try:
        seconds = float(expires_in)
    except (ValueError, OverflowError):
        huge = isinstance(expires_in, int) and expires_in > 0
        return LONGEST_LIFETIME_SECONDS if huge else ASSUMED_LIFETIME_SECONDS
    if math.isnan(seconds):
        return ASSUMED_LIFETIME_SECONDS
    return int(min(max(seconds, 0.0), float(LONGEST_LIFETIME_SECONDS)))


def _json_object(body: bytes) -> dict[str, object] | None:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _is_header_safe(token: str) -> bool:
    """Visible ASCII, so that it can go out in an Authorization header (RFC 6750 section 2.1)."""
    return bool(token) and token.isascii() and all("!" <= character <= "~" for character in token)


def _printable(text: object, longest: int = _LONGEST_DESCRIPTION) -> str:
    """Without what a database or a page can't hold; providers are not trusted with either."""
    if not isinstance(text, str):
        return ""
    return "".join(character for character in text if character.isprintable())[:longest]
