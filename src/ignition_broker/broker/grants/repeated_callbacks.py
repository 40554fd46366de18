"""A callback that comes a second time: by a reload, the back button or a double click."""

from __future__ import annotations

from typing import Final

from ignition_broker.broker.errors import AccountMismatch
from ignition_broker.broker.grants.connect_outcomes import Connected, ConnectFailed, StillConnecting
from ignition_broker.clock import Clock
from ignition_broker.storage import callbacks
from ignition_broker.storage.database import Database

SHOWN_AGAIN_SECONDS: Final = 3600
"""For how long a success is shown again: as long as the browser's cookie lives."""
WAIT_SECONDS: Final = 5.0
"""How long a second visit waits for the first, which sent the code."""
STORE_SECONDS: Final = 30.0
"""How long after the provider's patience the first visit is taken to have died on the way."""
_LOOK_EVERY_SECONDS: Final = 0.1


async def second_visit(
    database: Database,
    clock: Clock,
    state_hash: bytes,
    browser_hash: bytes,
    *,
    patience_seconds: float,
) -> Connected:
    """What the first visit came to, if it succeeded; nothing is sent or stored.

    ``patience_seconds``: how long the first visit's exchange may take. Raises `ConnectFailed` if
    it failed or its end is not known, `AccountMismatch` if an admin has to confirm the account, or
    `StillConnecting` while it goes on.
    """
    gives_up_at = clock.monotonic() + WAIT_SECONDS
    while True:
        past = await database.once(
            lambda c: callbacks.find(
                c,
                state_hash=state_hash,
                browser_hash=browser_hash,
                shown_for_seconds=SHOWN_AGAIN_SECONDS,
            )
        )
        if past is None:
            raise ConnectFailed(
                "This sign-in was already used, or begun in another browser",
                "Each sign-in works once, in the browser that began it.",
            )
        if past.expires_at is not None:
            if past.is_current:
                return Connected(
                    past.tenant,
                    past.scope or "",
                    past.expires_at,
                    past.warning,
                    is_renewable=past.is_renewable,
                    has_known_end=past.has_known_end,
                    account=past.account,
                )
            raise ConnectFailed(
                "This sign-in is over",
                "It connected the tenant, which was disconnected or connected anew since.",
                past.tenant,
            )
        if past.held_account is not None:
            raise AccountMismatch(past.tenant, past.held_account)
        if past.age_seconds > patience_seconds + STORE_SECONDS:
            raise ConnectFailed(
                "This sign-in was already used", "What came of it is not known.", past.tenant
            )
        if clock.monotonic() >= gives_up_at:
            raise StillConnecting(past.tenant)
        await clock.sleep(_LOOK_EVERY_SECONDS)
