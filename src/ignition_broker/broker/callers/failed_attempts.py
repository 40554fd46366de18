"""Failed tries to be let in, limited by the address that they come from.

Limits failed look-ups, not calls. Many services may share one address behind a network's gateway,
so a key that is held in memory never comes here (`broker.callers.access`).
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from ignition_broker.broker.errors import TooManyAttempts, Unauthenticated
from ignition_broker.clock import Clock

WINDOW_SECONDS = 60.0
ADDRESSES_REMEMBERED = 10_000
_LONGEST_ADDRESS = 64

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Allowance:
    """``left`` tries at ``at``, on the monotonic clock; below 0 after many at once."""

    left: float
    at: float


class Attempts:
    """In each process, ``limit`` failures a minute from one address, more as time goes by; 0: no
    limit. Bounded: the addresses that failed longest ago are forgotten first."""

    def __init__(self, clock: Clock, *, limit: int) -> None:
        self._monotonic = clock.monotonic
        self._limit = limit
        self._allowances: OrderedDict[str, Allowance] = OrderedDict()

    def __len__(self) -> int:
        return len(self._allowances)

    @contextmanager
    def attempt(self, address: str | None) -> Iterator[None]:
        """Around a try; counts it if it ends in `Unauthenticated`. ``address`` None: unknown, so
        not limited. Raises `TooManyAttempts`."""
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
        allowance = self._allowances.get(group)
        if allowance is None:
            return
        left = self._left(allowance)
        if left < 1:
            raise TooManyAttempts(
                "Too many calls from this address showed no valid key; try again later.",
                retry_after_seconds=(1 - left) * WINDOW_SECONDS / self._limit,
            )

    def _count(self, group: str) -> None:
        held = self._allowances.get(group)
        before = self._limit if held is None else self._left(held)
        # Tries under way at once are not held back by each other; the floor keeps what they cost
        # from lasting for more than two windows.
        left = max(before - 1, -float(self._limit))
        self._allowances[group] = Allowance(left, self._monotonic())
        self._allowances.move_to_end(group)
        if len(self._allowances) > ADDRESSES_REMEMBERED:
            self._allowances.popitem(last=False)
        if left < 1 <= before:
            log.warning("attempts_limited", address=group)

    def _left(self, allowance: Allowance) -> float:
        regained = (self._monotonic() - allowance.at) * self._limit / WINDOW_SECONDS
        return min(float(self._limit), allowance.left + regained)


def address_group(address: str) -> str:
    """What one caller can have many of counts as one: an IPv6 network of 64 bits."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:_LONGEST_ADDRESS]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


class Refusals:
    """Keys that were refused a moment ago. Whoever repeats one guesses nothing: it is neither
    looked up again nor counted."""

    def __init__(self, clock: Clock, most: int) -> None:
        self._clock = clock
        self._most = most
        self._refused: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def check(self, hashed: bytes) -> None:
        """Raises `Unauthenticated`."""
        until, reason = self._refused.get(hashed, (0.0, ""))
        if until > self._clock.monotonic():
            raise Unauthenticated(reason)

    def remember(self, hashed: bytes, reason: str, seconds: float) -> None:
        self._refused[hashed] = (self._clock.monotonic() + seconds, reason)
        self._refused.move_to_end(hashed)
        if len(self._refused) > self._most:
            self._refused.popitem(last=False)
