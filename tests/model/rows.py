"""The table `grants`, in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from sqlalchemy import TextClause

from ignition_broker.storage import leases


@dataclass
class GrantRow:
    """Moments are seconds on the server's clock."""

    tenant_id: str
    status: str = "connected"
    version: int = 1
    access_token: bytes | None = None
    refresh_token: bytes | None = None
    token_type: str | None = None
    scope: str | None = None
    issued_at: float | None = None
    expires_at: float | None = None
    connected_at: float | None = None
    lease_owner: str | None = None
    lease_until: float | None = None
    refresh_started_at: float | None = None
    next_refresh_at: float | None = None
    used_at: float | None = None
    failures: int = 0
    last_error: str | None = None
    refreshed_at: float | None = None
    early_renewals: int = 0


Given = dict[str, Any]
Found = list[SimpleNamespace]
Watcher = Callable[[TextClause, GrantRow | None, GrantRow], None]


@dataclass
class GrantRows:
    """``watch`` is told of every row that a statement changes."""

    watch: Watcher = lambda _statement, _before, _after: None
    tenants: set[str] = field(default_factory=set)
    rows: dict[str, GrantRow] = field(default_factory=dict)
    audit: list[tuple[str, str]] = field(default_factory=list)
    disconnects: dict[str, list[float]] = field(default_factory=dict)
    started_at: float = -1e9

    def at_version(self, given: Given) -> GrantRow | None:
        row = self.rows.get(given["tenant"])
        return row if row is not None and row.version == given["version"] else None

    def leased(self, given: Given) -> GrantRow | None:
        row = self.at_version(given)
        return row if row is not None and row.lease_owner == given["owner"] else None

    def lease_is_free(self, row: GrantRow, now: float) -> bool:
        return (row.lease_until is None or row.lease_until < now) and (
            row.refresh_started_at is None
            or self.started_at < now - leases.STORE_HEAD_START_SECONDS
        )
