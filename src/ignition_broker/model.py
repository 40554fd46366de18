"""The values that storage, broker, proxy and web hand to one another: frozen, without I/O.

Where a value has ``tenant``, that is the id of a tenant's grant (`ignition_broker.grant_ids`); only
`TenantSummary` has the tenant and the client apart.

Over 250 lines: they are read together, and imported nearly everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Final

from ignition_broker.grant_ids import DEFAULT_CLIENT, SEPARATOR, grant_id, is_client_name
from ignition_broker.oauth.tokens import ENDLESS_LIFETIME_SECONDS, AccessToken, RefreshToken
from ignition_broker.path_rules import PathRules
from ignition_broker.tenant_patterns import ANY_TENANT, TenantPatterns

TENANT_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"
_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


LONG_AGO: Final = float("-inf")
"""A time of the monotonic clock before all others, for tokens whose age is unknown."""


class GrantStatus(StrEnum):
    CONNECTED = "connected"
    REAUTHORIZATION_REQUIRED = "reauthorization_required"
    DISCONNECTED = "disconnected"


class Scope(StrEnum):
    """What an API key may be used for."""

    TOKEN = "token"
    PROXY = "proxy"
    ADMIN = "admin"


TENANT_ID_RULE = "1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
"""What a tenant id must be, for messages."""


def is_tenant_id(text: str) -> bool:
    """Whether ``text`` is well formed as a tenant's id; the tenant need not exist."""
    return _TENANT.fullmatch(text) is not None


def is_grant_id(text: str) -> bool:
    """Whether ``text`` is well formed as a grant's id; the grant need not exist."""
    tenant, separator, client = text.partition(SEPARATOR)
    return is_tenant_id(tenant) and (not separator or is_client_name(client))


def is_known_end(lifetime_seconds: float) -> bool:
    """Whether a token of that lifetime expires, rather than being one whose end is unknown."""
    return lifetime_seconds < ENDLESS_LIFETIME_SECONDS / 2


@dataclass(frozen=True)
class IssuedToken:
    """An access token that can be handed out.

    ``expires_at`` is on the database's clock and is shown to callers. Decisions are made by
    ``dies_at``, on this process's monotonic clock, so that a replica whose wall clock is wrong
    serves no expired token. ``lifetime_seconds`` counts from the request for the token to its
    expiry. ``version`` counts up with each token of a tenant. ``is_renewable`` is False if it is
    known that Ignition gave no refresh token.
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
        """The token's SHA-256 in hexadecimal, by which callers say that it was rejected."""
        return self.access_token.sha256

    def seconds_left(self, now: float) -> float:
        """Seconds until it expires, negative afterwards. ``now``: on the monotonic clock."""
        return self.dies_at - now

    @property
    def has_known_end(self) -> bool:
        """False if Ignition did not say when it expires."""
        return is_known_end(self.lifetime_seconds)

    def is_too_short_for(self, min_ttl_seconds: float) -> bool:
        """Whether a new token of this lifetime would not live for ``min_ttl_seconds`` either."""
        return min_ttl_seconds >= self.lifetime_seconds

    def lives_for(self, min_ttl_seconds: float, now: float) -> bool:
        """Whether it can be served to a caller who asks for ``min_ttl_seconds``.

        If no token of Ignition's lives that long, one in the first half of its lifetime is served.
        That exception is for renewable tokens: the others have no successor to wait for.
        ``now``: on the monotonic clock.
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
    """A tenant's grant as the database has it, decrypted.

    - ``issued``: None once the tokens were deleted.
    - ``is_uncertain``: the refresh token was sent, and no answer was stored.
    - ``retry_in_seconds``: how long until the next renewal is due.
    - ``early_renewals``: how many renewals callers have forced early in close succession.
    - ``refreshed_seconds_ago``: None before the first refresh.
    - ``is_renewable``: False if it is known that there is no refresh token.
    - ``issued_since``: when the tokens were requested, on the monotonic clock.
    - ``went_back``: this process has seen a higher version, so that the database lost some.
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

    - ``owner``: the name of this claim, which no other claim has.
    - ``use_before``: the last moment at which the request may be sent, on the monotonic clock.
    - ``was_uncertain``: an earlier request with the same refresh token was never answered.
    - ``access_dies_at``: when the current access token expires, on the monotonic clock.
    - ``connected_at``, on the database's clock: when the tenant last connected.
    - ``issued_since``: when the current tokens were requested, on the monotonic clock.
    - ``is_early``: a caller forces the renewal in the first half of the access token's lifetime.
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
    """A `Lease` as it was claimed, whose refresh token is still encrypted."""

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
class Account:
    """Whose data a grant reaches at Ignition. ``name`` is None where Ignition tells none."""

    id: str
    name: str | None


@dataclass(frozen=True, slots=True)
class PendingAccount:
    """Another account, which a reconnect brought and an admin has to confirm until
    ``expires_at``."""

    id: str
    name: str | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class TenantSummary:
    """What an admin sees of a tenant's grant at one OAuth client.

    ``renewable``: it is connected and has a refresh token. ``expires_at`` is None also for a token
    whose end is unknown, ``refresh_token_expires_at`` if Ignition does not tell it. ``account``: of
    the last connection; None: not known. ``account_shared_with``: the first other tenants that are
    connected to the same one.
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
    client: str = DEFAULT_CLIENT
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    account: Account | None = None
    account_shared_with: tuple[str, ...] = ()
    pending_account: PendingAccount | None = None

    @property
    def grant(self) -> str:
        """The grant's id (`ignition_broker.grant_ids`)."""
        return grant_id(self.tenant, self.client)


@dataclass(frozen=True)
class Caller:
    """Who calls, by an API key or a JWT, and what they may do.

    - ``tenants``: patterns of tenant ids.
    - ``dies_at``: when the key expires, on this process's monotonic clock; None: never.
    - ``paths``: rules for the calls that it may send through the proxy; None: any call.
    - ``rule_hash``: the hash of the rule that makes a workload an admin.
    - ``allowance_weight``: its share of a tenant's calls is in proportion to that.
    - ``allowance_reserve``: so many calls of each window are kept for it.
    """

    name: str
    scopes: frozenset[Scope]
    tenants: tuple[str, ...]
    dies_at: float | None = None
    key_hash: bytes = field(default=b"", repr=False)
    paths: tuple[str, ...] | None = None
    rule_hash: bytes = field(default=b"", repr=False)
    allowance_weight: int = 1
    allowance_reserve: int = 0

    @cached_property
    def _granted(self) -> tuple[Scope, ...]:
        # A tuple compares members by identity. To hash an enum member, as a set does, costs more
        # than the whole check.
        return tuple(Scope) if Scope.ADMIN in self.scopes else tuple(self.scopes)

    def may(self, scope: Scope) -> bool:
        """Whether the key has that scope; an admin's has all."""
        return scope in self._granted

    @cached_property
    def covers(self) -> Callable[[str], bool]:
        """Whether it may act for the tenant of that id: an admin for every one, others by their
        ``tenants`` (`ignition_broker.tenant_patterns`)."""
        # The matching method itself, so that the hot path makes one call, not two.
        return TenantPatterns((ANY_TENANT,) if Scope.ADMIN in self.scopes else self.tenants).cover

    @cached_property
    def path_rules(self) -> PathRules:
        """The rules of a key that has ``paths``. An empty list allows nothing."""
        return PathRules(self.paths or ())

    def is_expired(self, now: float) -> bool:
        """Whether the key has expired. ``now``: on the monotonic clock."""
        return self.dies_at is not None and self.dies_at <= now


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as an admin sees it; the key itself is not stored.

    ``paths``, ``allowance_weight`` and ``allowance_reserve``: as in `Caller`.
    ``previous_works_until``: after a rotation, when the last of the replaced keys stops working;
    None: none works. ``created_by``: the actor who made it; None: not noted.
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
    allowance_weight: int = 1
    allowance_reserve: int = 0
    created_by: str | None = None


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
    """An event's place in its chain.

    ``hash`` (hexadecimal) covers the event's fields and the hash of the event before it.
    """

    chain: int
    position: int
    hash: str


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event as stored. ``at``: on the database's clock. ``link``: None if it is older than the
    chains."""

    id: int
    at: datetime
    event: AuditEvent
    link: ChainLink | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did something and in which request, for the audit event."""

    name: str
    request_id: str | None = None


BROKER: Final = Actor("broker")
"""The broker itself, where nobody asked for what it did."""
