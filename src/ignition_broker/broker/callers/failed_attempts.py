"""Limits wrong API keys and JWTs by the address that they come from.

What is limited is failed look-ups, not calls: many services may share one address behind a
gateway, so a key that is held in memory never comes here (`broker.callers.access`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from ignition_broker.bounded_map import BoundedMap
from ignition_broker.broker.errors import TooManyAttempts, Unauthenticated
from ignition_broker.clock import Clock

WINDOW_SECONDS = 60.0
ADDRESSES_REMEMBERED = 10_000
_LONGEST_ADDRESS = 64

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class RemainingAttempts:
    """An address had ``left`` attempts ``at`` a time of the monotonic clock; fewer than 0 after
    many at once."""

    left: float
    at: float


class FailedAttempts:
    """The limit on failures from one address, in this process: a token bucket for each address.

    The addresses that failed longest ago are forgotten first (`ADDRESSES_REMEMBERED`).

    Args:
        limit: failures a minute from one address; 0: no limit.
    """

    def __init__(self, clock: Clock, *, limit: int) -> None:
        self._monotonic = clock.monotonic
        self._limit = limit
        self._remaining: BoundedMap[str, RemainingAttempts] = BoundedMap(ADDRESSES_REMEMBERED)

    def __len__(self) -> int:
        return len(self._remaining)

    @contextmanager
    def limited(self, address: str | None) -> Iterator[None]:
        """Around an attempt to authenticate: counts it if it ends in `Unauthenticated`.

        Args:
            address: where the call comes from; None where that is unknown: not limited.

        Raises:
            TooManyAttempts: too many attempts from ``address`` failed.
        """
        if address is None or not self._limit:
            yield
            return
        group = address_group(address)
        self._check(group)
        try:
            yield
        except Unauthenticated:
            self._count(group)
            raise

    def _check(self, group: str) -> None:
        remaining = self._remaining.get(group)
        if remaining is None:
            return
        left = self._left(remaining)
        if left < 1:
            raise TooManyAttempts(
                "Too many calls from this address showed no valid key; try again later.",
                retry_after_seconds=(1 - left) * WINDOW_SECONDS / self._limit,
            )

    def _count(self, group: str) -> None:
        remaining = self._remaining.get(group)
        before = self._limit if remaining is None else self._left(remaining)
        # Concurrent attempts are not held back by each other; the floor limits what they cost to
        # two windows.
        left = max(before - 1, -float(self._limit))
        self._remaining.store(group, RemainingAttempts(left, self._monotonic()))
        if left < 1 <= before:
            log.warning("attempts_limited", address=group)

    def _left(self, remaining: RemainingAttempts) -> float:
        regained = (self._monotonic() - remaining.at) * self._limit / WINDOW_SECONDS
        return min(float(self._limit), remaining.left + regained)


def address_group(address: str) -> str:
    """The addresses that count as one: an IPv6 network of 64 bits, since one host has all of it;
    an IPv4 address alone. Text that is no address counts by its beginning."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:_LONGEST_ADDRESS]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


class RefusedCredentials:
    """API keys and JWTs that were refused a moment ago, by their SHA-256.

    Repeating one guesses nothing, so it is neither looked up again nor counted as an attempt. At
    most ``capacity`` are remembered.
    """

    def __init__(self, clock: Clock, capacity: int) -> None:
        self._clock = clock
        self._refused: BoundedMap[bytes, tuple[float, str]] = BoundedMap(capacity)

    def check(self, hashed: bytes) -> None:
        """Raises `Unauthenticated`, with the reason of before, for one that is remembered."""
        until, reason = self._refused.get(hashed, (0.0, ""))
        if until > self._clock.monotonic():
            raise Unauthenticated(reason)

    def remember(self, hashed: bytes, reason: str, seconds: float) -> None:
        """Refuses it for ``seconds``, with the text ``reason``."""
        self._refused.store(hashed, (self._clock.monotonic() + seconds, reason))
