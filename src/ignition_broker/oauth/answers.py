"""Judges answers of the token endpoint, field by field. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from ignition_broker.oauth.fields import (
    error_code,
    error_description,
    is_header_safe,
    lifetime_seconds,
    one_text,
    refresh_lifetime_seconds,
    scope_of,
)
from ignition_broker.oauth.reading import Reading, read_fields
from ignition_broker.oauth.tokens import (
    ASSUMED_LIFETIME_SECONDS,
    AccessToken,
    RefreshToken,
    RefreshTokenOnly,
    Secret,
    TokenAnswer,
)
from ignition_broker.rate_limits import seconds_to_wait

NOT_CARRIED_OUT = frozenset({429, 503})
"""The statuses that say that the request was not carried out (RFC 6585 section 4, RFC 9110 section
15.6.4). With any other 5xx it may have been: a gateway answers 502 or 504 also when it could not
pass the answer on."""
_BEARER_TYPES = frozenset(
    {"", "bearer", "bearertoken", "jwt", "bearerjwt", "jwtbearer", "accesstoken", "token"}
    | {
        "oauth",
        "oauth2",
        "urnietfparamsoauthtokentypeaccesstoken",
        "urnietfparamsoauthtokentypejwt",
    }
)
"""What providers call bearer tokens, reduced to letters and digits. RFC 6750 has one name for them;
RFC 6749 section 7.1 forbids using a token of an unknown type."""
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
    """429 or 503: the request was not carried out.

    ``retry_after_seconds``: how long the server asks to wait; None: it does not say.
    """

    status: int
    retry_after_seconds: float | None


@dataclass(frozen=True, slots=True)
class NotOAuth:
    """Neither a token nor an OAuth error. ``reason`` says what was wrong, without quoting the
    answer."""

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
    """Judges an answer of the token endpoint (RFC 6749 sections 5.1 and 5.2).

    A token that can be read is taken, whatever the status and whatever else is wrong. Without one,
    a status that says that nothing was done counts more than the body.

    Args:
        headers: with names in lower case.
        now: the wall clock, to turn a date in ``Retry-After`` into seconds.
        is_whole: False if the body was cut off.
        sent: the secrets in the request, so that a refresh token which an error message repeats is
            not taken for a new one.
    """
    reading = read_fields(body)
    fields = {} if reading is None else reading.fields
    error = error_code(fields, status)
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
            refresh_lifetime_seconds(fields),
        )
    if status in NOT_CARRIED_OUT:
        return Overloaded(status, seconds_to_wait(status, headers, now=now))
    # In an answer that was cut off, what looks like an error may be a part of something else.
    if error and (is_whole or (reading is not None and reading.is_whole)):
        return OAuthError(status, error, error_description(fields))
    if 200 <= status < 300:
        said = "the body is no JSON object" if reading is None else reason
    else:
        said = "no OAuth error"
    return NotOAuth(status, f"status {status}, {said}")


def refuses_client(status: int, body: bytes) -> bool:
    """Whether the answer is ``invalid_client`` and nothing else: the client's authentication failed
    (RFC 6749 section 5.2), so nothing that the request carried was looked at.

    Not with a token in it, nor from a gateway's 5xx, which don't go with that.
    """
    reading = read_fields(body)
    if reading is None or not reading.is_whole or status >= 500:
        return False
    fields = reading.fields
    has_token = any(fields.get(name) for name in ("access_token", "refresh_token"))
    return not has_token and plain_code(error_code(fields, status)) == "invalidclient"


def plain_code(error: str) -> str:
    """An error code without what providers spell differently: ``Invalid-Grant`` is
    ``invalidgrant``."""
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
    scope = scope_of(fields.get("scope"))
    if scope is None and fields.get("scope") is not None:
        flaws.append("scope is malformed")
    lifetime = lifetime_seconds(fields.get("expires_in"))
    return TokenAnswer(
        access_token=access_token,
        token_type="Bearer",
        lifetime_seconds=ASSUMED_LIFETIME_SECONDS if lifetime is None else lifetime,
        refresh_token=refresh_token,
        scope=scope,
        flaws=tuple(flaws),
        lifetime_is_known=lifetime is not None,
        refresh_lifetime_seconds=refresh_lifetime_seconds(fields),
    )


def _access_token(fields: Mapping[str, object], error: str) -> tuple[AccessToken | None, str]:
    """A token that can be handed out as a bearer token, or None and the reason why there is
    none."""
    text = one_text(fields.get("access_token"))
    # A header's value can't begin or end with blanks, so they are not part of the token.
    text = None if text is None else text.strip()
    if text is None or text.casefold() in _NULLS:
        reason = "access_token is missing or malformed"
        return None, f"{reason}, error {error}" if _NAMEABLE.fullmatch(error) else reason
    if not is_header_safe(text):
        return None, "access_token has characters that can't stand in a header"
    token_type = one_text(fields.get("token_type")) or ""
    if re.sub(r"[^a-z0-9]", "", token_type.casefold()) in _BEARER_TYPES:
        return AccessToken(text), ""
    secrets = (text, one_text(fields.get("refresh_token")) or "")
    named = token_type if _is_name(token_type, secrets) else "something else"
    return None, f"token_type is {named}, not Bearer"


def _is_name(text: str, secrets: Collection[str]) -> bool:
    """Whether it is certainly the name of a type: anything else may contain a token."""
    is_part = any(secret and (secret in text or text in secret) for secret in secrets)
    return bool(_NAMEABLE.fullmatch(text)) and (not is_part or len(text) < _SHORTEST_SECRET)


def _refresh_token(fields: Mapping[str, object]) -> RefreshToken | None:
    text = one_text(fields.get("refresh_token"))
    if text is None or text.strip().casefold() in _NULLS:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        # A lone surrogate can neither be stored nor sent.
        return None
    return RefreshToken(text)
