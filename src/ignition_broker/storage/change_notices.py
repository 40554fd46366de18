"""What Postgres tells every replica by NOTIFY, on three channels: written and read here alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ignition_broker.model import GrantStatus

GRANTS_CHANNEL: Final = "grants"
API_KEYS_CHANNEL: Final = "api_keys"
REVOKED_KEYS_CHANNEL: Final = "revoked_api_keys"
"""A channel of its own, because the release before takes what `API_KEYS_CHANNEL` brings for a bare
name."""

NOTIFY_CHANGED: Final = f"pg_notify('{GRANTS_CHANNEL}', concat_ws(' ', tenant_id, version, status))"
"""Tells of the row ``changed``, as a `GrantChange`."""

NOTIFY_KEY_CHANGED: Final = f"pg_notify('{API_KEYS_CHANNEL}', name)"

NOTIFY_KEY_REVOKED: Final = f"""
    pg_notify('{REVOKED_KEYS_CHANNEL}',
        name || ' ' || CAST(extract(epoch FROM created_at) * 1000000 AS bigint))
"""
"""Tells of a key that an admin revoked, as a `KeyRevocation`."""


@dataclass(frozen=True, slots=True)
class GrantChange:
    """A grant's row was stored with this version and status."""

    tenant: str
    version: int
    status: GrantStatus

    @classmethod
    def parse(cls, payload: str) -> GrantChange:
        tenant, version, status = payload.split(" ")
        return cls(tenant, int(version), GrantStatus(status))


@dataclass(frozen=True, slots=True)
class KeyRevocation:
    """An API key was revoked. A name can be given again, so ``created_at_us`` (microseconds since
    1970) says which key of that name it was."""

    name: str
    created_at_us: int

    @classmethod
    def parse(cls, payload: str) -> KeyRevocation:
        name, created_at_us = payload.split(" ")
        return cls(name, int(created_at_us))
