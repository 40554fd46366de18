"""`fake-ignition`: the fake provider and API alone."""

from __future__ import annotations

import socket
from enum import StrEnum
from typing import Annotated

import typer
import uvicorn

from ignition_broker.fake_ignition import create_fake_ignition, options_for


class FakeProfile(StrEnum):
    """Which Ignition the fake stands in for."""

    GUIDE = "guide"
    IGNITIONAPP = "ignitionapp"


def fake_ignition(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 4000,
    lifetime: Annotated[int, typer.Option(help="Seconds an access token lives.")] = 3600,
    redirect_uri: Annotated[
        str, typer.Option(help="Where it sends the browser back to.")
    ] = "http://localhost:3000/callback",
    profile: Annotated[
        FakeProfile, typer.Option(help="Which Ignition it stands in for.")
    ] = FakeProfile.GUIDE,
    requests_per_hour: Annotated[
        int, typer.Option(min=0, help="Requests to the reporting API an hour and practice.")
    ] = 1000,
) -> None:
    """Run the fake provider and API alone, on loopback."""
    refuse_taken(port)
    options = options_for(
        profile.value,
        access_token_lifetime_seconds=lifetime,
        redirect_uris=(redirect_uri,),
        requests_per_hour=requests_per_hour,
    )
    typer.echo(f"fake Ignition on http://localhost:{port}")
    typer.echo(f"  client {options.client_id!r}, secret {options.client_secret!r}")
    for name, path in (
        ("AUTHORIZE", options.dialect.authorize),
        ("TOKEN", options.dialect.token),
        ("REVOKE", options.dialect.revoke),
        ("API", options.dialect.api_base),
    ):
        typer.echo(f"  IGNITION_{name}_URL=http://localhost:{port}{path}")
    app = create_fake_ignition(options)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def refuse_taken(port: int) -> None:
    """Ends the command where ``port`` of this machine is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            typer.echo(f"port {port} is taken; choose another with --port", err=True)
            raise typer.Exit(1) from None
