"""Refreshes imported grants once each, slowly, through the broker's own refresh."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from ignition_broker.broker.errors import (
    BrokerError,
    ProviderFault,
    ProviderUnavailable,
    Unavailable,
)
from ignition_broker.broker.grants.issue import Issuer
from ignition_broker.broker.grants.tenants import show_tenant
from ignition_broker.broker.moving.rows import ImportRow
from ignition_broker.clock import Clock
from ignition_broker.model import Actor
from ignition_broker.storage.database import Database

MOST_FAILURES: Final = 3
"""After so many failures in a row that are no tenant's own, nobody else is tried: each try against
an Ignition that loses answers may spend a refresh token."""


@dataclass(frozen=True, slots=True)
class Verified:
    """``is_good``: its refresh token works. ``text``: what came of it."""

    row: ImportRow
    is_good: bool
    text: str


async def verify(
    database: Database,
    issuer: Issuer,
    clock: Clock,
    rows: Sequence[ImportRow],
    actor: Actor,
    *,
    pause_seconds: float,
) -> AsyncIterator[Verified]:
    """Refreshes each row's grant, unless it has been refreshed since it was stored; so a run that
    was stopped goes on where it ended.

    ``pause_seconds``: between two requests to Ignition. Raises the errors of `storage.errors`.
    """
    failures = 0
    asked = False
    for row in rows:
        if not row.is_renewable:
            yield Verified(row, is_good=True, text="has no refresh token to verify")
            continue
        if (await show_tenant(database, row.grant)).refreshed_at is not None:
            yield Verified(row, is_good=True, text="refreshed before")
            continue
        if failures >= MOST_FAILURES:
            yield Verified(row, is_good=False, text="not tried, since Ignition seems to be away")
            continue
        if asked:
            await clock.sleep(pause_seconds)
        asked = True
        try:
            token = await issuer.renew_anyway(row.grant, actor)
        except (ProviderUnavailable, ProviderFault, Unavailable) as error:
            failures += 1
            yield Verified(row, is_good=False, text=error.detail)
        except BrokerError as error:
            failures = 0
            yield Verified(row, is_good=False, text=error.detail)
        else:
            failures = 0
            until = f"{token.expires_at:%Y-%m-%d %H:%M:%S UTC}"
            yield Verified(row, is_good=True, text=f"refreshed, expires {until}")
