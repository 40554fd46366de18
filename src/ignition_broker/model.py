"""What the layers above the database speak of: frozen values, no I/O."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Final

from ignition_broker.oauth.tokens import ENDLESS_LIFETIME_SECONDS, AccessToken, RefreshToken
from ignition_broker.path_rules import PathRules
from ignition_broker.tenant_patterns import ANY_TENANT, TenantPatterns

TENANT_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"
_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


LONG_AGO: Final = float("-inf")
"""On the monotonic clock, of what has no moment."""


class GrantStatus(StrEnum):
    CONNECTED = "connected"
    REAUTHORIZATION_REQUIRED = "reauthorization_required"
    DISCONNECTED = "disconnected"


class Scope(StrEnum):
    """What an API key may be used for."""

    TOKEN = "token"
    PROXY = "proxy"
    ADMIN = "admin"


def is_tenant_id(text: str) -> bool:
    return _TENANT.fullmatch(text) is not None


def is_known_end(lifetime_seconds: float) -> bool:
    """Whether a token of that life ends then, rather than being one of an unknown end."""
    return lifetime_seconds < ENDLESS_LIFETIME_SECONDS / 2


@dataclass(frozen=True)
class IssuedToken:
    """An access token fit to be handed out, and how to tell it from its successors.

    ``expires_at`` is on the database's clock, for those who read it. What decides is ``dies_at``,
    on this process's monotonic clock, so that a replica whose wall clock is wrong serves no dead
    token. ``lifetime_seconds``: from the request that brought it to its end. ``is_renewable`` is
    False where it is known that Ignition gave no refresh token.
    """

    tenant: str
    access_token: AccessToken
    token_type: str
    scope: str
    expires_at: datetime
    lifetime_seconds: float
    dies_at: float
    version: int
    is_renewable: bool = True

    @cached_property
    def sha256(self) -> str:
        """How callers name it when they saw it rejected."""
        return self.access_token.sha256

    def seconds_left(self, now: float) -> float:
        return self.dies_at - now

    @property
    def has_known_end(self) -> bool:
        """False for one that may live for ever."""
        return is_known_end(self.lifetime_seconds)

    def is_too_short_for(self, min_ttl_seconds: float) -> bool:
        """Whether Ignition's tokens never live as long as a caller asks."""
        return min_ttl_seconds >= self.lifetime_seconds

    def lives_for(self, min_ttl_seconds: float, now: float) -> bool:
        """Whether it can be served to a caller who asks for ``min_ttl_seconds``.

        Where Ignition's tokens never live that long, the first half of one's life must do, unless
        no other will follow it.
        """
        left = self.dies_at - now
        asked = self.lifetime_seconds
        if min_ttl_seconds < asked or not self.is_renewable:
            asked = min_ttl_seconds
        else:
            asked /= 2
        return left > 0 and left >= asked


@dataclass(frozen=True, slots=True)
class Grant:
    """A tenant's grant as it stands in the database, decrypted.

    ``issued`` is None once the tokens are forgotten.
    ``is_uncertain`` says that the refresh token went out once and no answer was stored.
    ``issued_since``: when the tokens were asked for, on the monotonic clock. ``went_back`` says
    that this process has seen a higher version.
    ``early_renewals`` counts the renewals that callers forced early, one close behind the other.
    ``refreshed_seconds_ago`` is None before the first refresh. ``is_renewable`` is False where it
    is known that there is no refresh token.
    """

    tenant: str
    status: GrantStatus
    version: int
    issued: IssuedToken | None
    lease_is_held: bool
    is_uncertain: bool
    retry_in_seconds: float
    failures: int
    last_error: str | None
    early_renewals: int
    refreshed_seconds_ago: float | None
    is_renewable: bool = True
    issued_since: float = LONG_AGO
    went_back: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to use one refresh token once, until the lease runs out.

    ``use_before`` and ``access_dies_at`` are on the monotonic clock: the last moment at which the
    request may go out, and the end of the access token that is in force. ``was_uncertain`` tells
    that an earlier use of the same refresh token was never answered. ``is_early``: a caller forces
    the renewal, while the access token has more than half of its life left.
    """

    tenant: str
    version: int
    owner: str
    refresh_token: RefreshToken
    scope: str
    use_before: float
    was_uncertain: bool
    failures: int
    access_dies_at: float
    connected_at: datetime | None = None
    issued_since: float = LONG_AGO
    is_early: bool = False


@dataclass(frozen=True, slots=True)
class SealedLease:
    """A `Lease` as it was claimed, its refresh token still encrypted."""

    tenant: str
    version: int
    owner: str
    refresh_token: bytes = field(repr=False)
    scope: str
    use_before: float
    was_uncertain: bool
    failures: int
    access_dies_at: float
    connected_at: datetime | None = None
    issued_since: float = LONG_AGO
    is_early: bool = False


@dataclass(frozen=True, slots=True)
class TenantSummary:
    """What an admin sees of a tenant.

    ``renewable``: it is connected, and there is a refresh token. ``expires_at`` is None for a token
    without a known end too; ``refresh_token_expires_at`` where Ignition does not say.
    """

    tenant: str
    status: GrantStatus
    scope: str | None
    expires_at: datetime | None
    connected_at: datetime | None
    refreshed_at: datetime | None
    last_error: str | None
    renewable: bool = False
    refresh_token_expires_at: datetime | None = None


@dataclass(frozen=True)
class Caller:
    """Who holds an API key, and what it covers.

    ``paths``: the rules that its calls through the proxy are held to; None: to none.
    ``dies_at``: when the key ends, on this process's monotonic clock. ``rule_hash``: of the rule
    that makes a workload an admin.
    """

    name: str
    scopes: frozenset[Scope]
    tenants: tuple[str, ...]
    dies_at: float | None = None
    key_hash: bytes = field(default=b"", repr=False)
    paths: tuple[str, ...] | None = None
    rule_hash: bytes = field(default=b"", repr=False)

    @cached_property
    def _granted(self) -> tuple[Scope, ...]:
        # Members of a tuple are told by identity; an enum's hash costs more than the whole check.
        return tuple(Scope) if Scope.ADMIN in self.scopes else tuple(self.scopes)

    def may(self, scope: Scope) -> bool:
        return scope in self._granted

    @cached_property
    def covers(self) -> Callable[[str], bool]:
        """Whether it may act for the tenant of that id: an admin for every one, others by their
        ``tenants`` (`ignition_broker.tenant_patterns`)."""
        # The matching method itself, so that the hot path makes one call, not two.
        return TenantPatterns((ANY_TENANT,) if Scope.ADMIN in self.scopes else self.tenants).cover

    @cached_property
    def path_rules(self) -> PathRules:
        """For a key that has ``paths``; without any these allow nothing."""
        return PathRules(self.paths or ())

    def is_expired(self, now: float) -> bool:
        """``now``: on the monotonic clock."""
        return self.dies_at is not None and self.dies_at <= now


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as an admin sees it; the key itself is not kept.

    ``previous_works_until``: when the last of those that it replaced ends; None: none works.
    """

    name: str
    scopes: tuple[str, ...]
    tenants: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    paths: tuple[str, ...] | None
    previous_works_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing that happened; ``detail`` never holds a secret."""

    action: str
    outcome: str
    actor: str
    tenant: str | None = None
    request_id: str | None = None
    detail: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChainLink:
    """An event's place: ``hash``, in hexadecimal, covers its fields and its predecessor's hash."""

    chain: int
    position: int
    hash: str


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """``link`` is None in events from before there were chains."""

    id: int
    at: datetime
    event: AuditEvent
    link: ChainLink | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did something, and in which request: what an audit event names."""

    name: str
    request_id: str | None = None


BROKER: Final = Actor("broker")
"""The broker itself, where nobody asked for what it did."""
