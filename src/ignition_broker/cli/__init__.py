"""The command line: one module a group of commands; here they are put together."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from ignition_broker import __version__
from ignition_broker.broker.errors import BrokerError, InvalidRequest
from ignition_broker.cipher import CipherError
from ignition_broker.cli import (
    api_keys,
    audit,
    dev,
    encryption_keys,
    fake_ignition,
    serve,
    tenants,
    tenants_export,
    tenants_import,
    webhooks,
)
from ignition_broker.cli.output import FAILED, WRONG_USAGE, print_notice
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
app.command("fake-ignition")(fake_ignition.fake_ignition)
app.add_typer(encryption_keys.app, name="keys")
app.add_typer(api_keys.app, name="api-keys")
tenants.app.command("import")(tenants_import.import_tenants)
tenants.app.command("export")(tenants_export.export_tenants)
tenants.app.command("export-key")(tenants_export.make_key)
app.add_typer(tenants.app, name="tenants")
app.add_typer(audit.app, name="audit")
app.add_typer(webhooks.app, name="webhooks")


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
        # Log lines would mix with the output; what went wrong is said on stderr.
        configure_logging("CRITICAL", "auto")


def main() -> None:
    """Runs the command that the arguments name, and exits.

    Exit codes: 0 done; 1 it failed; 2 wrong usage or settings. What went wrong is one line on
    stderr; of settings, a line each.
    """
    try:
        app()
    except SettingsError as error:
        _end(WRONG_USAGE, *error.lines)
    except InvalidRequest as error:
        _end(WRONG_USAGE, error.detail)
    except SessionsNotKept as error:
        _end(WRONG_USAGE, f"DATABASE_URL: {error}")
    except BrokerError as error:
        _end(FAILED, error.detail)
    except StorageError as error:
        _end(FAILED, f"the database can't be used: {error}")
    except (CipherError, EmbeddedPostgresError) as error:
        _end(FAILED, str(error))


def _end(exit_code: int, *lines: str) -> NoReturn:
    for line in lines:
        print_notice(line)
    sys.exit(exit_code)
