"""What this process knows that a database which went back has lost: versions and sealed answers.

Both are bounded. Answers are kept encrypted, as they went into the row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ignition_broker.bounded_map import BoundedMap
from ignition_broker.clock import Clock
from ignition_broker.model import GrantStatus
from ignition_broker.storage.sealed_tokens import Schedule, SealedTokens, Stored

MOST_VERSIONS = 100_000
MOST_ANSWERS = 50_000
MOST_BYTES = 64 * 1024 * 1024
MOST_REVOCATIONS = 10_000


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """``seen_at``: when the row had this version and status, on the monotonic clock."""

    version: int
    status: GrantStatus
    seen_at: float

    def is_ahead_of(self, version: int, issued_since: float) -> bool:
        """Whether a row is older than this, which means that the database went back.

        ``issued_since``: when the row's tokens were asked for, on the monotonic clock. A lower
        version alone proves nothing: after the database went back, renewals and connects use its
        versions a second time, but their tokens are younger than what was seen.
        """
        return version < self.version and issued_since < self.seen_at


class KnownVersions:
    """The newest version of each tenant's grant that this process has seen or heard of."""

    def __init__(self) -> None:
        self._known: BoundedMap[str, KnownVersion] = BoundedMap(MOST_VERSIONS)

    def of(self, tenant: str) -> KnownVersion | None:
        return self._known.get(tenant)

    def note(self, tenant: str, version: int, status: GrantStatus, *, seen_at: float) -> None:
        """The row has this version now, whatever it had before."""
        self._known.store(tenant, KnownVersion(version, status, seen_at))

    def tenants(self) -> list[str]:
        """All tenants, the one seen last at the end."""
        return list(self._known)

    def disconnected_since(self, moment: float) -> Iterator[str]:
        """Tenants whose disconnect was seen since ``moment`` (monotonic clock)."""
        for tenant in reversed(self._known):
            known = self._known[tenant]
            if known.seen_at < moment:
                return
            if known.status is GrantStatus.DISCONNECTED:
                yield tenant


@dataclass(frozen=True, slots=True)
class RememberedAnswer:
    """Ignition's answer as this process stored it. ``requested_at``: when the request went out, on
    the monotonic clock."""

    stored: Stored
    sealed: SealedTokens = field(repr=False)
    schedule: Schedule
    requested_at: float

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.sealed.access_token) + len(self.sealed.refresh_token)


class RememberedAnswers:
    """Keeps the newest answer of each tenant for ``seconds``; 0: keeps none."""

    def __init__(self, clock: Clock, *, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._answers: dict[str, tuple[float, RememberedAnswer]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def remember(self, tenant: str, answer: RememberedAnswer) -> None:
        self.forget(tenant)
        if self._seconds:
            self._answers[tenant] = (self._clock.monotonic() + self._seconds, answer)
            self._bytes += answer.size
            self._drop_oldest()

    def of(self, tenant: str) -> RememberedAnswer | None:
        self._drop_oldest()
        found = self._answers.get(tenant)
        return None if found is None else found[1]

    def forget(self, tenant: str) -> None:
        found = self._answers.pop(tenant, None)
        if found is not None:
            self._bytes -= found[1].size

    def tenants(self) -> Sequence[str]:
        """The tenants of which an answer is kept."""
        self._drop_oldest()
        return list(self._answers)

    def _drop_oldest(self) -> None:
        now = self._clock.monotonic()
        while self._answers:
            tenant, (until, _answer) = next(iter(self._answers.items()))
            is_too_much = len(self._answers) > MOST_ANSWERS or self._bytes > MOST_BYTES
            if until > now and not is_too_much:
                return
            self.forget(tenant)


class RememberedRevocations:
    """Keeps for ``seconds`` which API keys were revoked: their names, and when each was made, in
    microseconds since 1970."""

    def __init__(self, clock: Clock, *, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._revoked: BoundedMap[str, tuple[float, int]] = BoundedMap(MOST_REVOCATIONS)

    def remember(self, name: str, created_at: int) -> None:
        self._revoked.store(name, (self._clock.monotonic() + self._seconds, created_at))

    def all(self) -> Sequence[tuple[str, int]]:
        now = self._clock.monotonic()
        return [(name, made) for name, (until, made) in self._revoked.items() if until > now]
