"""How commands print: results on stdout, everything else on stderr, and two exit codes.

0 means done; typer itself exits with 2 for wrong usage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

FAILED: Final = 1
WRONG_USAGE: Final = 2

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(value: object) -> None:
    """Prints ``value``, indented, with datetimes in ISO 8601 (RFC 3339)."""
    typer.echo(json.dumps(value, indent=2, default=_iso_8601))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints ``rows`` under the heads ``columns``, as wide as the terminal."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_notice(text: str) -> None:
    """Prints a line on stderr, beside the result."""
    typer.echo(text, err=True)


def time_text(moment: datetime | None, *, absent: str = "") -> str:
    """``moment`` to the second, for a table; ``absent`` where there is none."""
    return absent if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def _iso_8601(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON")
