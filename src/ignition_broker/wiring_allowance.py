"""Builds what shares a tenant's calls at Ignition's API among its callers, from the settings."""

from __future__ import annotations

import os
import secrets
import socket

from ignition_broker.broker.allowance.gate import AllowanceGate
from ignition_broker.broker.allowance.reports import Allowance
from ignition_broker.clock import Clock
from ignition_broker.grant_ids import client_of
from ignition_broker.proxy.forward import Forwarder
from ignition_broker.proxy.metered import MeteredForwarder
from ignition_broker.settings import Settings
from ignition_broker.storage.database import Database


def allowance_gate(settings: Settings, database: Database, clock: Clock) -> AllowanceGate | None:
    """The gate of this process; None where no OAuth client's calls are counted."""
    counted = {
        name: Allowance(*client.allowance)
        for name, client in settings.oauth_clients.items()
        if client.allowance is not None
    }
    if not counted:
        return None
    return AllowanceGate(
        database,
        clock,
        replica=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        allowance_of=lambda grant: counted.get(client_of(grant)),
    )


def metered(forwarder: Forwarder, gate: AllowanceGate | None) -> Forwarder | MeteredForwarder:
    """``forwarder`` itself where nothing is counted."""
    return forwarder if gate is None else MeteredForwarder(forwarder, gate)
