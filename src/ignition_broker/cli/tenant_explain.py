"""`tenants explain`: why a grant is as it is."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

import typer

from ignition_broker.broker.explanations.causes import Explanation
from ignition_broker.broker.explanations.explain import explain
from ignition_broker.cipher import Cipher
from ignition_broker.cli.database import with_database
from ignition_broker.cli.output import AsJson, print_json
from ignition_broker.cli.tenant_arguments import Client, TenantId
from ignition_broker.grant_ids import DEFAULT_CLIENT, grant_id
from ignition_broker.settings import RotationSettings, fernet_keys, load_settings

app = typer.Typer()


@app.command("explain")
def explain_tenant(
    tenant: TenantId, as_json: AsJson = False, client: Client = DEFAULT_CLIENT
) -> None:
    """Say why the tenant's grant is as it is, by what evidence, and what to do next."""
    settings = load_settings(RotationSettings)
    cipher = Cipher(fernet_keys(settings.broker_encryption_keys))
    grant = grant_id(tenant, client)
    found = with_database(lambda database: explain(database, cipher, grant), settings)
    if as_json:
        print_json(asdict(found))
        return
    typer.echo("\n".join(_lines(found)))


def _lines(found: Explanation) -> list[str]:
    lines = [f"{found.tenant}: {found.status.replace('_', ' ')}"]
    for cause in found.causes:
        lines += ["", f"{cause.text} ({cause.confidence}; {cause.code})"]
        lines += [f"  - {each.what}{_when(each.at, each.event_id)}" for each in cause.evidence]
        lines += [f"  Next: {cause.next_step}"]
    if found.tells_apart is not None:
        lines += ["", f"What would tell them apart: {found.tells_apart}"]
    return lines


def _when(at: datetime | None, event_id: int | None) -> str:
    parts = [] if at is None else [f"{at:%Y-%m-%d %H:%M:%S UTC}"]
    parts += [] if event_id is None else [f"audit event {event_id}"]
    return f" ({', '.join(parts)})" if parts else ""
