"""Answers of the token endpoint, judged field by field and never fetched."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from ignition_broker.oauth.reading import Reading, read_fields
from ignition_broker.oauth.tokens import (
    ASSUMED_LIFETIME_SECONDS,
    ENDLESS_LIFETIME_SECONDS,
    LONGEST_LIFETIME_SECONDS,
    AccessToken,
    RefreshToken,
    RefreshTokenOnly,
    Secret,
    TokenAnswer,
)
from ignition_broker.rate_limits import seconds_to_wait

NOT_CARRIED_OUT = frozenset({429, 503})
"""The statuses by which a server says that it did nothing (RFC 6585 section 4, RFC 9110 section
15.6.4). Behind any other 5xx, the server may have carried the request out: a gateway gives 502 or
504 when it is the answer that it could not pass on."""
_LONGEST_DESCRIPTION = 300
_BEARER_TYPES = frozenset(
    {"", "bearer", "bearertoken", "jwt", "bearerjwt", "jwtbearer", "accesstoken", "token"}
    | {
        "oauth",
        "oauth2",
        "urnietfparamsoauthtokentypeaccesstoken",
        "urnietfparamsoauthtokentypejwt",
    }
)
"""How bearer tokens are labelled in the field, letters and digits alone. RFC 6750 has one label;
RFC 6749 section 7.1 forbids to use a token of a type that is not understood."""
_NAMEABLE = re.compile(r"[A-Za-z][A-Za-z0-9_.:/+-]{0,39}")
_SHORTEST_SECRET = 8
_NULLS = frozenset({"", "null", "none", "nil", "undefined"})


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


TokenVerdict = TokenAnswer | RefreshTokenOnly | OAuthError | Overloaded | NotOAuth


def judge_token_answer(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: datetime,
    is_whole: bool = True,
    sent: Collection[Secret] = (),
) -> TokenVerdict:
    """What the token endpoint said (RFC 6749 sections 5.1 and 5.2).

    A token that can be read counts, whatever the status and whatever else is wrong. After that,
    the statuses that say that nothing was done are judged before the body.

    ``headers`` are looked up in lower case; ``now`` turns a time to try again into seconds;
    ``is_whole`` is False where the body was cut off; ``sent`` are the secrets that the request
    held, so that a refresh token that an error repeats is not taken for a new one.
    """
    reading = read_fields(body)
    fields = {} if reading is None else reading.fields
    error = _error(fields, status)
    refresh_token = _refresh_token(fields)
    if error and refresh_token in sent:
        refresh_token = None
    access_token, reason = _access_token(fields, error)
    if access_token is not None:
        assert reading is not None  # noqa: S101  # the token was read in it
        return _token_answer(access_token, refresh_token, reading)
    if refresh_token is not None and reading is not None:
        return RefreshTokenOnly(
            refresh_token,
            f"status {status}, {reason}",
            reading.flaws,
            _refresh_lifetime_seconds(fields),
        )
    if status in NOT_CARRIED_OUT:
        return Overloaded(status, seconds_to_wait(status, headers, now=now))
    # An error picked out of an answer that was cut off may be a part of something else.
    if error and (is_whole or (reading is not None and reading.is_whole)):
        return OAuthError(status, error, _description(fields))
    if 200 <= status < 300:
        said = "the body is no JSON object" if reading is None else reason
    else:
        said = "no OAuth error"
    return NotOAuth(status, f"status {status}, {said}")


def plain_code(error: str) -> str:
    """An error code without what providers vary: ``Invalid-Grant`` is ``invalidgrant``."""
    return re.sub(r"[\W_]", "", error).casefold()


def _token_answer(
    access_token: AccessToken, refresh_token: RefreshToken | None, reading: Reading
) -> TokenAnswer:
    fields = reading.fields
    flaws = list(reading.flaws)
    if refresh_token is None and fields.get("refresh_token"):
        flaws.append("refresh_token is malformed")
    token_type = fields.get("token_type", "Bearer")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        flaws.append("token_type is not Bearer, and taken for it")
    scope = _scope(fields.get("scope"))
    if scope is None and fields.get("scope") is not None:
        flaws.append("scope is malformed")
    lifetime = _lifetime_seconds(fields.get("expires_in"))
    return TokenAnswer(
        access_token=access_token,
        token_type="Bearer",
        lifetime_seconds=ASSUMED_LIFETIME_SECONDS if lifetime is None else lifetime,
        refresh_token=refresh_token,
        scope=scope,
        flaws=tuple(flaws),
        lifetime_is_known=lifetime is not None,
        refresh_lifetime_seconds=_refresh_lifetime_seconds(fields),
    )


def _access_token(fields: Mapping[str, object], error: str) -> tuple[AccessToken | None, str]:
    """One that can be handed out as a bearer token; else the reason why there is none."""
    text = _one_text(fields.get("access_token"))
    # A header's value can't begin or end with blanks, so they are no part of the token.
    text = None if text is None else text.strip()
    if text is None or text.casefold() in _NULLS:
        reason = "access_token is missing or malformed"
        return None, f"{reason}, error {error}" if _NAMEABLE.fullmatch(error) else reason
    if not _is_header_safe(text):
        return None, "access_token has characters that can't stand in a header"
    token_type = _one_text(fields.get("token_type")) or ""
    if re.sub(r"[^a-z0-9]", "", token_type.casefold()) in _BEARER_TYPES:
        return AccessToken(text), ""
    secrets = (text, _one_text(fields.get("refresh_token")) or "")
    named = token_type if _is_name(token_type, secrets) else "something else"
    return None, f"token_type is {named}, not Bearer"


def _is_name(text: str, secrets: Collection[str]) -> bool:
    """Whether it is plainly the name of a type: anything else may hold a token."""
    is_part = any(secret and (secret in text or text in secret) for secret in secrets)
    return bool(_NAMEABLE.fullmatch(text)) and (not is_part or len(text) < _SHORTEST_SECRET)


def _refresh_token(fields: Mapping[str, object]) -> RefreshToken | None:
    text = _one_text(fields.get("refresh_token"))
    if text is None or text.strip().casefold() in _NULLS:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        # A lone surrogate can neither be stored nor sent.
        return None
    return RefreshToken(text)


def _one_text(value: object) -> str | None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else None


def _scope(scope: object) -> str | None:
    """RFC 6749 section 3.3 has a text; some send a list."""
    if isinstance(scope, list):
        scope = " ".join(part for part in scope if isinstance(part, str))
    return _printable(scope, longest=10_000) if isinstance(scope, str) else None


def _error(fields: Mapping[str, object], status: int) -> str:
    """The error's code, empty if there is none. Some put it into an object or a list."""
    named = fields.get("error")
    candidates: list[object] = [named]
    if isinstance(named, list):
        named, *_rest = named or [None]
        candidates = [named]
    if isinstance(named, Mapping):
        candidates = [named.get(name) for name in ("error", "code", "type")]
    if named or not 200 <= status < 300:
        candidates += [fields.get("error_code"), fields.get("code")]
    texts = (_printable(candidate).strip() for candidate in candidates)
    return next(filter(None, texts), "")


def _description(fields: Mapping[str, object]) -> str:
    described: object = fields.get("error_description") or fields.get("message")
    error = fields.get("error")
    if not described and isinstance(error, Mapping):
        described = error.get("message") or error.get("error_description")
    return _printable(described)


def _refresh_lifetime_seconds(fields: Mapping[str, object]) -> int | None:
    """By the names that providers have for it. Zero means no end (Keycloak's offline tokens)."""
    for name in ("refresh_token_expires_in", "x_refresh_token_expires_in", "refresh_expires_in"):
        lifetime = _lifetime_seconds(fields.get(name), longest=ENDLESS_LIFETIME_SECONDS)
        if lifetime:
            return lifetime
    return None


def _lifetime_seconds(expires_in: object, longest: int = LONGEST_LIFETIME_SECONDS) -> int | None:
    """What can be trusted of ``expires_in``: never more than it says, whatever its type.

    Absent or no number: None. Zero or less: 0. Numbers in strings are taken.
    """
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float | str):
        return None
    try:
        seconds = float(expires_in)
    except (ValueError, OverflowError):
        huge = isinstance(expires_in, int) and expires_in > 0
        return longest if huge else None
    if math.isnan(seconds):
        return None
    return int(min(max(seconds, 0.0), float(longest)))


def _is_header_safe(token: str) -> bool:
    """Visible ASCII, so that it can go out in an Authorization header (RFC 6750 section 2.1)."""
    return bool(token) and token.isascii() and all("!" <= character <= "~" for character in token)


def _printable(text: object, longest: int = _LONGEST_DESCRIPTION) -> str:
    """Without what a database or a page can't hold; providers are not trusted with either."""
    if not isinstance(text, str):
        return ""
    return "".join(character for character in text if character.isprintable())[:longest]
