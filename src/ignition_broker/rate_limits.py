"""How long a server asks its clients to wait, in any of the ways that servers say it. Pure.

`Retry-After` goes first, since it is the standard's word for this very answer (RFC 9110 section
10.2.3). Without it, the headers that describe the rate limit say when its window ends:

- `RateLimit: "hour";r=0;t=120` with `RateLimit-Policy: "hour";q=1000;w=3600`
  (draft-ietf-httpapi-ratelimit-headers, from its 8th version on; the 7th had
  `RateLimit: limit=1000, remaining=0, reset=120`)
- `X-RateLimit-Remaining`, `X-RateLimit-Reset`, and the same without the `X-`

Those stand on answers of any status, so they count only where the limit is what refused the call.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_WAIT_SECONDS = 3600.0
LIMIT_HEADERS = frozenset(
    f"{prefix}-{what}".encode()
    for prefix in ("ratelimit", "x-ratelimit", "x-rate-limit")
    for what in ("limit", "remaining", "reset", "policy")
) | {b"ratelimit"}
"""The headers that describe a rate limit, in lower case."""
SHORTEST_WINDOW_SECONDS = 1.0
"""A window that has ended already, by our clock: it ends in this second, or the clocks differ."""
_TOO_MANY_REQUESTS = 429
# No server asks to wait for 31 years: such a number is a time since 1970, in seconds or, from
# the second bound on, in milliseconds.
_EPOCH_FROM = 1_000_000_000
_EPOCH_MILLISECONDS_FROM = 1_000_000_000_000
_NUMBER = re.compile(r"[0-9]{1,30}(?:\.[0-9]{0,30})?")
_LONGEST_FIELD = 1000
_MOST_CALLS = 10**15
_ITEM = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^",])+')
_PARAMETER = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^";])+')


@dataclass(frozen=True, slots=True)
class _Limit:
    """One rate limit, as far as its headers tell."""

    remaining: float | None
    reset_seconds: float


def seconds_to_wait(status: int, headers: Mapping[str, str], *, now: datetime) -> float | None:
    """How long an answer of ``status`` asks to wait: from 0 to an hour; None: it does not say.

    ``headers`` are looked up in lower case, a repeated one joined by commas (RFC 9110 section
    5.2). ``now`` turns a date, or seconds since 1970, into a duration. What makes no sense counts
    as absent.
    """
    asked = retry_after_seconds(headers.get("retry-after"), now=now)
    if asked is not None:
        return asked
    limits = list(_limits(headers, now))
    # With several limits, the call is let through once the last of the spent ones begins anew.
    ends = [_end(limit) for limit in limits if limit.remaining is not None and limit.remaining <= 0]
    if not ends and status == _TOO_MANY_REQUESTS:
        ends = [_end(limit) for limit in limits if limit.remaining is None]
    return max(ends, default=None)


@dataclass(frozen=True, slots=True)
class ToldLimit:
    """A rate limit as an answer's headers tell it: ``calls`` in all, of which ``remaining`` are
    left for ``reset_seconds``; each None where it is not told."""

    calls: int | None
    remaining: int | None
    reset_seconds: float | None


def told_limit(headers: Mapping[str, str], *, now: datetime) -> ToldLimit:
    """The rate limit that an answer tells; of several, the one with the least left.

    ``headers`` and ``now`` as in `seconds_to_wait`. The server's own `Date` turns a time since
    1970 into a duration where there is one, since its clock may not be ours; it is cut to the
    second, so that the duration is at most a second too long.
    """
    at = _date(headers.get("date")) or now
    described = _least_described(headers, at)
    if described is not None:
        return described
    for prefix in ("ratelimit", "x-ratelimit", "x-rate-limit"):
        calls = _least(headers.get(f"{prefix}-limit"))
        remaining = _least(headers.get(f"{prefix}-remaining"))
        reset = headers.get(f"{prefix}-reset")
        if calls is not None or remaining is not None or reset is not None:
            seconds = _seconds_until(reset, at)
            return ToldLimit(_whole(calls), _whole(remaining), seconds)
    return ToldLimit(None, None, None)


def _least_described(headers: Mapping[str, str], now: datetime) -> ToldLimit | None:
    """By the draft, of any version."""
    policies = dict(_items(headers.get("ratelimit-policy", "")))
    found: list[ToldLimit] = []
    members: dict[str, str] = {}
    for name, parameters in _items(headers.get("ratelimit", "")):
        key, equals, value = name.partition("=")
        if equals and not name.startswith('"'):
            members[key.strip().lower()] = value.strip()
            continue
        calls = _number(policies.get(name, {}).get("q"))
        remaining = _number(parameters.get("r"))
        found.append(
            ToldLimit(_whole(calls), _whole(remaining), _duration(parameters.get("t"), now))
        )
    if members:
        numbers = [_number(members.get(name)) for name in ("limit", "remaining")]
        reset = _duration(members.get("reset"), now)
        found.append(ToldLimit(_whole(numbers[0]), _whole(numbers[1]), reset))
    return min(
        found, default=None, key=lambda one: math.inf if one.remaining is None else one.remaining
    )


def _date(value: str | None) -> datetime | None:
    try:
        found = None if value is None else parsedate_to_datetime(value[:_LONGEST_FIELD])
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found is None or found.tzinfo is not None else found.replace(tzinfo=UTC)


def _whole(number: float | None) -> int | None:
    return None if number is None else int(min(number, _MOST_CALLS))


def retry_after_seconds(value: str | None, *, now: datetime) -> float | None:
    """``Retry-After`` as seconds from ``now``, at most an hour (RFC 9110 section 10.2.3).

    Beside seconds and a date, a time since 1970 is taken, and the longest of several numbers.
    """
    seconds = _seconds_until(value, now)
    return None if seconds is None else min(seconds, LONGEST_WAIT_SECONDS)


def _seconds_until(value: str | None, now: datetime) -> float | None:
    if value is None:
        return None
    value = value[:_LONGEST_FIELD].strip()
    waits = [_duration(part.strip(), now) for part in value.split(",")]
    numbers = [wait for wait in waits if wait is not None]
    if len(numbers) == len(waits):
        return max(numbers)
    date = _date(value)
    return None if date is None else max((date - now).total_seconds(), 0.0)


def as_texts(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Raw headers, their names in lower case, as a mapping; repeated ones are joined."""
    texts: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        texts[name] = f"{texts[name]}, {value}" if name in texts else value
    return texts


def _limits(headers: Mapping[str, str], now: datetime) -> Iterator[_Limit]:
    """Of the draft where a limit is told by it; else of the headers before the draft."""
    described = list(_described_limits(headers, now))
    yield from described
    if described:
        return
    for prefix in ("ratelimit", "x-ratelimit", "x-rate-limit"):
        remaining = _least(headers.get(f"{prefix}-remaining"))
        reset = headers.get(f"{prefix}-reset")
        seconds = None if reset is None else retry_after_seconds(reset, now=now)
        if seconds is not None:
            yield _Limit(remaining, seconds)
            return


def _described_limits(headers: Mapping[str, str], now: datetime) -> Iterator[_Limit]:
    windows = {
        name: _number(parameters.get("w"))
        for name, parameters in _items(headers.get("ratelimit-policy", ""))
    }
    members: dict[str, str] = {}
    for name, parameters in _items(headers.get("ratelimit", "")):
        key, equals, value = name.partition("=")
        if equals and not name.startswith('"'):
            members[key.strip().lower()] = value.strip()
            continue
        # Without its time, a window may have begun just now.
        reset = _duration(parameters.get("t"), now)
        reset = windows.get(name) if reset is None else reset
        if reset is not None:
            yield _Limit(_number(parameters.get("r")), reset)
    reset = _duration(members.get("reset"), now)
    if reset is not None:
        yield _Limit(_number(members.get("remaining")), reset)


def _items(value: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Of a list with parameters (RFC 9651 section 3.1), as far as rate limits use one."""
    for item in _ITEM.findall(value[:_LONGEST_FIELD]):
        parts = [part.strip() for part in _PARAMETER.findall(item)]
        pairs = (parameter.partition("=") for parameter in parts[1:])
        if parts:
            yield parts[0], {key.strip().lower(): text.strip() for key, _, text in pairs}


def _end(limit: _Limit) -> float:
    return min(max(limit.reset_seconds, SHORTEST_WINDOW_SECONDS), LONGEST_WAIT_SECONDS)


def _duration(text: str | None, now: datetime) -> float | None:
    """Seconds from ``now``, of a duration or of a time since 1970."""
    number = _number(text)
    if number is None or number < _EPOCH_FROM:
        return number
    at = number / 1000 if number >= _EPOCH_MILLISECONDS_FROM else number
    return max(at - now.timestamp(), 0.0)


def _least(value: str | None) -> float | None:
    numbers = [_number(part.strip()) for part in (value or "").split(",")]
    return min((number for number in numbers if number is not None), default=None)


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and _NUMBER.fullmatch(text) else None
