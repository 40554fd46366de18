"""The statements that read and change grants, carried out on rows in memory.

`test_same_as_postgres` holds them to what Postgres makes of the real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

from sqlalchemy import TextClause

from ignition_broker.storage import grants, leases, new_tokens, refresh_failures, restoring
from tests.model.rows import Found, Given, GrantRow, GrantRows


def carry_out(table: GrantRows, statement: TextClause, given: Given, now: float) -> Found:
    """A statement is known by its identity."""
    before = {tenant: replace(row) for tenant, row in table.rows.items()}
    found = STATEMENTS[statement](table, given, now)
    for tenant, row in table.rows.items():
        if row != before.get(tenant):
            table.watch(statement, before.get(tenant), row)
    return found


def read(table: GrantRows, given: Given, now: float) -> Found:
    return [_seen(table, tenant, now) for tenant in given["tenants"] if tenant in table.tenants]


def _seen(table: GrantRows, tenant: str, now: float) -> SimpleNamespace:
    row = table.rows.get(tenant)
    if row is None:
        return SimpleNamespace(known=tenant, status=None)
    expires_at, held_until = row.expires_at, row.lease_until
    seen = SimpleNamespace(known=tenant, **vars(row))
    if expires_at is not None and row.issued_at is not None:
        seen.lifetime_seconds = expires_at - row.issued_at
        seen.seconds_left = expires_at - now
        seen.expires_at = _moment(expires_at)
    # The simulated Ignition always gives a refresh token.
    seen.is_renewable = True
    seen.issued_seconds_ago = None if row.issued_at is None else now - row.issued_at
    seen.lease_is_held = held_until is not None and held_until > now
    seen.is_uncertain = row.refresh_started_at is not None and not seen.lease_is_held
    due = row.next_refresh_at
    seen.refreshed_seconds_ago = None if row.refreshed_at is None else now - row.refreshed_at
    seen.retry_in_seconds = 0.0 if due is None else max(0.0, due - now)
    return seen


def claim(table: GrantRows, given: Given, now: float) -> Found:
    row = table.at_version(given)
    if row is None or row.status != "connected" or not table.lease_is_free(row, now):
        return []
    return [_claimed(table, row, given, now)]


def claim_due(table: GrantRows, given: Given, now: float) -> Found:
    due = [
        row
        for row in table.rows.values()
        if row.next_refresh_at is not None
        and row.next_refresh_at < now
        and row.status == "connected"
        and table.lease_is_free(row, now)
        and row.tenant_id not in given["besides"]
        and (row.refresh_started_at is None or _at(row.expires_at) < now)
    ]
    due.sort(key=lambda row: _at(row.next_refresh_at))
    return [_claimed(table, row, given, now) for row in due[: given["limit"]]]


def _claimed(table: GrantRows, row: GrantRow, given: Given, now: float) -> SimpleNamespace:
    if row.lease_owner is not None:
        table.audit.append(("refresh", "answer_lost"))
    was_uncertain = row.refresh_started_at is not None
    row.lease_owner, row.refresh_started_at = given["owner"], now
    row.lease_until = now + given["lease"]
    more = {
        "was_uncertain": was_uncertain,
        "seconds_left": _at(row.expires_at) - now,
        "issued_seconds_ago": now - _at(row.issued_at),
        "connected_at": _moment(_at(row.connected_at)),
    }
    return SimpleNamespace(**{**vars(row), **more})


def extend(table: GrantRows, given: Given, now: float) -> Found:
    row = table.leased(given)
    if row is None:
        return []
    row.lease_until = now + given["lease"]
    return [SimpleNamespace(version=row.version)]


def store_refreshed(table: GrantRows, given: Given, now: float) -> Found:
    row = table.at_version(given)
    if row is None:
        return []
    _take_tokens(row, given, now)
    is_close = row.refreshed_at is not None and row.refreshed_at > now - given["early_window"]
    row.early_renewals = (row.early_renewals if is_close else 0) + 1 if given["is_early"] else 0
    row.refreshed_at = now
    row.failures, row.last_error = given["failures"], given["last_error"]
    row.next_refresh_at = _when_due(row, given, now)
    return _changed(table, row, given)


def store_connected(table: GrantRows, given: Given, now: float) -> Found:
    row = table.rows.setdefault(given["tenant"], GrantRow(given["tenant"], version=0))
    _take_tokens(row, given, now)
    row.connected_at = now
    row.used_at, row.next_refresh_at = now, now + given["renew_in"]
    row.failures, row.last_error = 0, None
    row.early_renewals, row.refreshed_at = 0, None
    return _changed(table, row, given)


def _take_tokens(row: GrantRow, given: Given, now: float) -> None:
    row.status = "connected"
    row.access_token, row.refresh_token = given["access_token"], given["refresh_token"]
    row.token_type, row.scope = given["token_type"], given["scope"]
    row.issued_at, row.expires_at = now - given["age"], now + given["left"]
    row.version += 1
    row.lease_owner = row.lease_until = row.refresh_started_at = None


def find_stored(table: GrantRows, given: Given, _now: float) -> Found:
    row = table.at_version(given)
    if row is None or row.access_token != given["access_token"]:
        return []
    return [_stored(row)]


def restore(table: GrantRows, given: Given, now: float) -> Found:
    row = table.rows.get(given["tenant"])
    if row is None:
        if given["tenant"] not in table.tenants:
            return []
        row = table.rows[given["tenant"]] = GrantRow(given["tenant"], version=0)
        row.connected_at, row.used_at = _seconds(given["connected_at"]), now
        error = "before this tenant was connected"
    elif _is_behind(table, row, given):
        error = f"version {row.version}"
    else:
        return []
    found = row.version
    _take_tokens(row, given, now)
    row.version, row.connected_at = given["version"], _seconds(given["connected_at"])
    row.refreshed_at, row.early_renewals = now - given["age"], 0
    row.next_refresh_at, row.failures = now + given["renew_in"], 0
    row.last_error = f"the database went back to {error}; version {row.version} was stored again"
    (stored,) = _changed(table, row, given)
    return [SimpleNamespace(**vars(stored), found=found)]


def _is_behind(table: GrantRows, row: GrantRow, given: Given) -> bool:
    # As moments, whose microseconds are what Postgres keeps.
    ours, theirs = given["connected_at"], _moment(_at(row.connected_at))
    is_same = theirs == ours and row.status != "disconnected"
    was_ended = any(_moment(at) > ours for at in table.disconnects.get(row.tenant_id, ()))
    is_younger = (
        given["issued_at"] is not None
        and row.issued_at is not None
        and _moment(row.issued_at) >= given["issued_at"]
    )
    return (
        row.version < given["version"]
        and not is_younger
        and (is_same or (theirs < ours and not was_ended))
    )


def _when_due(row: GrantRow, given: Given, now: float) -> float | None:
    if row.used_at is not None and row.used_at > now - 3 * given["lifetime"]:
        return now + float(given["renew_in"])
    return now + float(given["keepalive"]) if given["keepalive"] > 0 else None


def states(table: GrantRows, given: Given, now: float) -> Found:
    return [
        SimpleNamespace(
            tenant_id=row.tenant_id,
            version=row.version,
            status=row.status,
            issued_seconds_ago=None if row.issued_at is None else now - row.issued_at,
        )
        for row in map(table.rows.get, given["tenants"])
        if row is not None
    ]


def mark_behind(table: GrantRows, given: Given, now: float) -> Found:
    row = table.at_version(given)
    if row is None or row.status != "connected":
        return []
    is_free = row.lease_until is None or row.lease_until < now
    said = (row.last_error or "").startswith("the database went back:")
    if not is_free or (row.refresh_started_at is not None and said):
        return []
    row.lease_owner = row.lease_until = None
    row.refresh_started_at = now if row.refresh_started_at is None else row.refresh_started_at
    row.last_error = given["error"]
    row.next_refresh_at = max(_at(row.expires_at), now + given["wait"])
    return _changed(table, row, given)


def hold(table: GrantRows, given: Given, _now: float) -> Found:
    row = table.at_version(given)
    return [] if row is None or row.status == "disconnected" else [SimpleNamespace(held=True)]


def record_refusal(table: GrantRows, given: Given, _now: float) -> Found:
    row = table.leased(given)
    if row is None or row.status != "connected":
        return []
    row.status, row.last_error = "reauthorization_required", given["error"]
    row.lease_owner = row.lease_until = row.refresh_started_at = row.next_refresh_at = None
    return _changed(table, row, given)


def record_not_used(table: GrantRows, given: Given, now: float) -> Found:
    row = table.leased(given)
    if row is None:
        return []
    _give_back(row, given)
    row.failures, row.last_error = row.failures + 1, given["error"]
    row.next_refresh_at = now + given["retry_in"]
    return _changed(table, row, given)


def record_answer_lost(table: GrantRows, given: Given, now: float) -> Found:
    row = table.leased(given)
    if row is None:
        return []
    row.lease_owner = row.lease_until = None
    row.failures, row.last_error = row.failures + 1, given["error"]
    row.next_refresh_at = now + given["retry_in"]
    if not given["was_uncertain"] and row.expires_at is not None:
        row.next_refresh_at = max(row.next_refresh_at, row.expires_at)
    return _changed(table, row, given)


def give_back(table: GrantRows, given: Given, _now: float) -> Found:
    row = table.leased(given)
    if row is not None:
        _give_back(row, given)
    return []


def _give_back(row: GrantRow, given: Given) -> None:
    row.lease_owner = row.lease_until = None
    if not given["was_uncertain"]:
        row.refresh_started_at = None


def disconnect(table: GrantRows, given: Given, now: float) -> Found:
    row = table.rows.get(given["tenant"])
    if row is None:
        return []
    forgotten_tokens = SimpleNamespace(
        refresh_token=row.refresh_token,
        access_token=row.access_token,
        is_live=row.expires_at is not None and row.expires_at > now,
    )
    forgotten = GrantRow(
        row.tenant_id,
        "disconnected",
        version=row.version + 1,
        connected_at=row.connected_at,
        used_at=row.used_at,
        refreshed_at=row.refreshed_at,
        early_renewals=row.early_renewals,
    )
    table.rows[row.tenant_id] = forgotten
    table.disconnects.setdefault(row.tenant_id, []).append(now)
    _changed(table, forgotten, given)
    return [forgotten_tokens]


def read_status(table: GrantRows, given: Given, _now: float) -> Found:
    row = table.rows.get(given["tenant"])
    return [] if row is None else [SimpleNamespace(status=row.status)]


def note_use(table: GrantRows, given: Given, now: float) -> Found:
    for row in map(table.rows.get, given["tenants"]):
        if row is not None and row.status == "connected":
            row.used_at = now
            if row.failures == 0 and row.refresh_started_at is None:
                lifetime = _at(row.expires_at) - _at(row.issued_at)
                ahead = _at(row.expires_at) - min(given["lead"], lifetime / 2)
                due = row.next_refresh_at
                row.next_refresh_at = ahead if due is None else min(due, ahead)
    return []


def _changed(table: GrantRows, row: GrantRow, given: Given) -> Found:
    table.audit.append((given["action"], given["outcome"]))
    return [_stored(row)]


def _stored(row: GrantRow) -> SimpleNamespace:
    moments = {
        name: None if (at := getattr(row, name)) is None else _moment(at)
        for name in ("expires_at", "connected_at", "issued_at")
    }
    return SimpleNamespace(version=row.version, **moments)


def _at(moment: float | None) -> float:
    """Of a column that a connected grant always has."""
    assert moment is not None
    return moment


def _seconds(moment: datetime) -> float:
    return moment.timestamp()


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


STATEMENTS: dict[TextClause, Callable[[GrantRows, Given, float], Found]] = {
    grants.READ: read,
    leases.CLAIM: claim,
    leases.CLAIM_DUE: claim_due,
    leases.EXTEND: extend,
    new_tokens.STORE_REFRESHED: store_refreshed,
    new_tokens.STORE_CONNECTED: store_connected,
    new_tokens.FIND_STORED: find_stored,
    restoring.RESTORE: restore,
    restoring.OFFER: restore,
    restoring.MARK_BEHIND: mark_behind,
    restoring.STATES: states,
    restoring.HOLD: hold,
    refresh_failures.RECORD_REFUSAL: record_refusal,
    refresh_failures.RECORD_NOT_USED: record_not_used,
    refresh_failures.RECORD_ANSWER_LOST: record_answer_lost,
    leases.GIVE_BACK: give_back,
    grants.DISCONNECT: disconnect,
    grants.STATUS: read_status,
    grants.NOTE_USE: note_use,
}
NOTIFYING = {
    new_tokens.STORE_REFRESHED,
    new_tokens.STORE_CONNECTED,
    restoring.RESTORE,
    restoring.OFFER,
    restoring.MARK_BEHIND,
    refresh_failures.RECORD_REFUSAL,
    refresh_failures.RECORD_NOT_USED,
    refresh_failures.RECORD_ANSWER_LOST,
    grants.DISCONNECT,
}
