"""Reads an import file, CSV or JSON lines, into rows and faults. Does no I/O. No fault quotes a
value: whatever is in the wrong place may be a token."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NoReturn

from ignition_broker.broker.moving.rows import COLUMNS, ImportRow, RowRefused, checked_row
from ignition_broker.grant_ids import client_of

MOST_BYTES: Final = 512 * 1024 * 1024
MOST_FAULTS: Final = 20
_KNOWN: Final = ", ".join(COLUMNS)


class FileRefused(ValueError):
    """``line``: 0 for the file as a whole."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


@dataclass(slots=True)
class Reading:
    """``faults``: the first of them, by line; rows are to be stored only where there are none."""

    rows: list[ImportRow] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)


def read_rows(content: bytes, *, now: datetime, clients: Collection[str]) -> Reading:
    """All rows of a file. ``clients``: the OAuth clients that the settings name."""
    reading = Reading()
    grants: dict[str, int] = {}
    tokens: dict[str, int] = {}
    try:
        for line, fields in _records(content):
            try:
                row = checked_row(line, fields, now=now)
                _check_client(row, clients)
                _check_once(grants, row.grant, line, "tenant")
                if row.is_renewable:
                    _check_once(tokens, row.refresh_token.sha256, line, "refresh_token")
            except RowRefused as error:
                reading.faults.append((line, str(error)))
                if len(reading.faults) >= MOST_FAULTS:
                    break
            else:
                reading.rows.append(row)
    except FileRefused as error:
        reading.faults.append((error.line, str(error)))
    if not reading.rows and not reading.faults:
        reading.faults.append((0, "the file has no rows"))
    return reading


def _check_client(row: ImportRow, clients: Collection[str]) -> None:
    if client_of(row.grant) not in clients:
        raise RowRefused("client: IGNITION_CLIENTS names no such client")


def _check_once(seen: dict[str, int], key: str, line: int, name: str) -> None:
    before = seen.setdefault(key, line)
    if before != line:
        raise RowRefused(f"{name}: is that of line {before} too; name it once")


def _records(content: bytes) -> Iterator[tuple[int, Mapping[str, object]]]:
    if len(content) > MOST_BYTES:
        raise FileRefused(0, f"the file has more than {MOST_BYTES} bytes; split it")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FileRefused(0, "the file is UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileRefused(line, "is no UTF-8; save the file as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise FileRefused(line, "has a NUL character; is this a text file?")
    yield from _json_lines(text) if text.lstrip()[:1] in ("{", "[") else _csv(text)


def _csv(text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    head, *_rest = text.lstrip("\r\n").splitlines() or [""]
    delimiter = next((mark for mark in ",;\t" if mark in head), ",")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if header is None:
                    header = _header(cells, line)
                elif len(cells) != len(header):
                    raise FileRefused(
                        line, f"has {len(cells)} fields, the header {len(header)}; quote fields"
                    )
                else:
                    yield line, dict(zip(header, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error:
        raise FileRefused(
            line, "is no proper CSV: a quote is not closed or stands amid a field"
        ) from None


def _header(cells: list[str], line: int) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    if "tenant" not in names:
        # It may be a row of tokens, so nothing of it is shown.
        raise FileRefused(line, f"must be the header and name the column tenant; known: {_KNOWN}")
    if len(set(names)) != len(names):
        raise FileRefused(line, "the header names a column twice")
    for name in names:
        _check_name(name, line)
    return names


def _check_name(name: str, line: int) -> None:
    if name not in COLUMNS:
        shown = f" {name}" if name.isidentifier() and len(name) <= 30 else ""
        raise FileRefused(line, f"has the unknown column{shown}; known: {_KNOWN}")


def _json_lines(text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for line, record in enumerate(text.split("\n"), 1):
        if not record.strip():
            continue
        try:
            fields = json.loads(record, object_pairs_hook=_once, parse_constant=_refused)
        except (ValueError, RecursionError):
            raise FileRefused(line, "is no JSON object, or names a field twice") from None
        if not isinstance(fields, dict):
            raise FileRefused(line, "is no JSON object; write one object a line")
        for name in fields:
            _check_name(name, line)
        yield line, fields


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name comes twice")
    return dict(pairs)


def _refused(_name: str) -> NoReturn:
    raise ValueError("no JSON")
