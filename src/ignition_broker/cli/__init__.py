"""The command line: composition only."""

from __future__ import annotations

import sys

import typer

from ignition_broker import __version__
from ignition_broker.broker.errors import BrokerError
from ignition_broker.cipher import CipherError
from ignition_broker.cli import api_keys, audit, dev, keys, serve, tenants
from ignition_broker.embedded import EmbeddedPostgresError
from ignition_broker.settings import SettingsError
from ignition_broker.storage.errors import SessionsNotKept, StorageError
from ignition_broker.telemetry import configure_logging

app = typer.Typer(
    name="ignition-broker",
    help="Keeps OAuth 2.0 grants for Ignition alive and hands out tokens that work.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(dev.dev)
app.command()(serve.serve)
app.command()(serve.migrate)
app.command("fake-ignition")(dev.fake_ignition)
app.add_typer(keys.app, name="keys")
app.add_typer(api_keys.app, name="api-keys")
app.add_typer(tenants.app, name="tenants")
app.add_typer(audit.app, name="audit")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", is_eager=True, callback=_show_version, help="Show the version."
    ),
) -> None:
    if context.invoked_subcommand not in {"serve", "dev", "fake-ignition"}:
        # A log line would stand among what is printed; what went wrong is said on stderr.
        configure_logging("CRITICAL", "auto")


def main() -> None:
    """Exit codes: 0 done, 1 it failed, 2 wrong usage or settings."""
    try:
        app()
    except SettingsError as error:
        for line in error.lines:
            print(line, file=sys.stderr)
        sys.exit(2)
    except BrokerError as error:
        print(error.detail, file=sys.stderr)
        sys.exit(1)
    except CipherError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except SessionsNotKept as error:
        print(f"DATABASE_URL: {error}", file=sys.stderr)
        sys.exit(2)
    except StorageError as error:
        print(f"the database can't be used: {error}", file=sys.stderr)
        sys.exit(1)
    except EmbeddedPostgresError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
