"""`audit`: verifies and exports the audit trail, at the database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ignition_broker.broker.audit import verification
from ignition_broker.cli.database import resuming_by, with_database
from ignition_broker.cli.output import FAILED, AsJson, print_json, print_notice
from ignition_broker.json_reading import read_json
from ignition_broker.model import ChainLink, RecordedEvent
from ignition_broker.storage.database import Database

app = typer.Typer(help="The audit trail.", no_args_is_help=True)


@app.command()
def verify(
    heads: Annotated[
        Path | None,
        typer.Option(help="A file that `audit heads` wrote earlier: the trail must still hold it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find events that were removed, changed or reordered; exit 1 if there are any."""
    kept = [] if heads is None else _kept_heads(heads)
    # A restart ends the snapshot, so the verification starts again from the beginning.
    with resuming_by(lambda: "nothing was changed; run `audit verify` again"):
        verdict = with_database(lambda db: db.patiently(lambda: verification.verify(db, kept)))
    if as_json:
        print_json(asdict(verdict))
    else:
        for finding in verdict.findings:
            typer.echo(finding)
        found = f"{len(verdict.findings)} findings" if verdict.findings else "nothing amiss"
        unchained = f", {verdict.unchained} from before there were chains" * bool(verdict.unchained)
        print_notice(f"{verdict.events} chained events{unchained}: {found}")
    if verdict.findings:
        raise typer.Exit(FAILED)


@app.command()
def heads() -> None:
    """Print the newest event of each chain; keep it where nobody can change it later."""
    with resuming_by(lambda: "run `audit heads` again"):
        found = with_database(lambda db: db.patiently(lambda: verification.heads(db)))
    for head in found:
        typer.echo(json.dumps({"chain": head.chain, "position": head.position, "hash": head.hash}))


@app.command()
def export(
    since: Annotated[str, typer.Option(help="2026-01-01 or 2026-01-01T12:00:00+01:00.")],
    until: Annotated[
        str | None, typer.Option(help="The end, in the same form; not included. Default: now.")
    ] = None,
) -> None:
    """Print the events of a period as JSON lines, oldest first; times without a zone are UTC."""
    first, end = _moment(since), None if until is None else _moment(until)

    last: RecordedEvent | None = None

    async def work(database: Database) -> None:
        nonlocal last
        async for last in verification.export(database, since=first, until=end):
            typer.echo(json.dumps(_fields(last)))

    def advice() -> str:
        if last is None:
            return "nothing was printed; run it again"
        return (
            f"everything up to event {last.id} was printed; go on with --since {_in_utc(last.at)}, "
            "which prints the events of that instant again"
        )

    with resuming_by(advice):
        with_database(work)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}: give a date or a time, such as 2026-01-01 or 2026-01-01T12:00:00Z"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _kept_heads(path: Path) -> Sequence[ChainLink]:
    try:
        lines: list[Any] = [
            read_json(line) for line in path.read_text().splitlines() if line.strip()
        ]
        return [
            ChainLink(int(line["chain"]), int(line["position"]), line["hash"]) for line in lines
        ]
    except OSError as error:
        raise typer.BadParameter(f"heads: {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise typer.BadParameter(f"heads: {path} is not what `audit heads` writes") from None


def _in_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def _fields(row: RecordedEvent) -> dict[str, object]:
    event, link = row.event, row.link
    return {
        "id": row.id,
        "at": _in_utc(row.at),
        "tenant": event.tenant,
        "actor": event.actor,
        "action": event.action,
        "outcome": event.outcome,
        "request_id": event.request_id,
        "detail": event.detail,
        "chain": link and link.chain,
        "position": link and link.position,
        "hash": link and link.hash,
    }
