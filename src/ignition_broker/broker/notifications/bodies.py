"""What is said of an event: the JSON of webhooks and event streams, and a sentence for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from ignition_broker.grant_ids import DEFAULT_CLIENT, client_of, tenant_of
from ignition_broker.storage.outbox import OutboxEvent

EVENT_TYPES: Final = (
    "tenant.connected",
    "tenant.reauthorization_required",
    "tenant.disconnected",
    "tenant.ending_soon",
    "provider.unavailable",
    "provider.recovered",
    "client.misconfigured",
    "test",
)


def members_of(event: OutboxEvent) -> dict[str, Any]:
    """The JSON object that webhooks and event streams get."""
    tenant, client = None, event.client or DEFAULT_CLIENT
    if event.grant is not None:
        tenant, client = tenant_of(event.grant), client_of(event.grant)
    about: dict[str, Any] = {"tenant": tenant, "client": client, "status": event.status}
    if event.reason is not None:
        about["reason"] = event.reason
    if event.ends_at is not None:
        about["ends_at"] = utc_text(event.ends_at)
    return {"type": event.type, "timestamp": utc_text(event.at), "data": about}


def body_of(event: OutboxEvent) -> str:
    """The same at each try, so that a receiver can compare."""
    return json.dumps(members_of(event), separators=(",", ":"))


def sentence_of(event: OutboxEvent) -> str:
    """For an e-mail or a chat, on one line."""
    data = members_of(event)["data"]
    who = data["tenant"] or ""
    if data["client"] != DEFAULT_CLIENT:
        who = f"{who} (client {data['client']})".strip()
    match event.type:
        case "tenant.connected":
            text = f"{who} is connected"
        case "tenant.disconnected":
            text = f"{who} was disconnected"
        case "tenant.reauthorization_required":
            text = f"{who} must be connected again"
        case "tenant.ending_soon":
            text = f"{who} ends on {data['ends_at']}; connect it again before that"
        case "provider.unavailable":
            text = "Ignition is not available"
        case "provider.recovered":
            text = "Ignition is available again"
        case "client.misconfigured":
            text = "Ignition rejects this broker's client"
        case "test":
            text = "This is a test"
        case other:
            text = f"{other} {who}".strip()
    reason = " ".join((event.reason or "").split())
    return f"{text} ({reason})" if reason else text


def utc_text(moment: datetime) -> str:
    """RFC 3339, in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
