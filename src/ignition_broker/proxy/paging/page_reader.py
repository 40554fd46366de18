"""Reads one page of a list: ``{"data": […], "meta": {"pagination": {…}}}``. Pure.

No value is decoded and encoded again, so that neither a long number nor an escape changes: a row
is the bytes that came, less the line breaks between its tokens. JSON allows none within a string
(RFC 8259 section 7), which `json` checks.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from ignition_broker.proxy.paging.errors import PageUnreadable
from ignition_broker.proxy.paging.lines import OWN_LINE_BEGINS, unlike_own_line

STEP_BYTES = 1 << 16
"""So much is read before other calls get their turn: about a millisecond."""
LONGEST_CURSOR = 4096
NOT_A_PAGE = (
    'it is not of the form {"data": […], "meta": {"pagination": {"has_more", "next_cursor"}}}'
)

_skip_blanks = re.compile(r"[ \t\n\r]*").match


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


# Numbers are not converted: it takes time that grows with the square of their length, and Python
# refuses whole numbers of more than 4300 digits.
_values = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_constant)


@dataclass(frozen=True, slots=True)
class Page:
    """``lines``: the rows, each with a line break behind it. ``next_cursor``: None where the page
    names none."""

    lines: bytearray
    rows: int
    has_more: bool
    next_cursor: str | None


class PageReader:
    """Reads ``body``, the whole answer in clear; ``page`` is there once `steps` has ended."""

    page: Page | None = None

    def __init__(self, body: bytes) -> None:
        self._body = body.removeprefix(codecs.BOM_UTF8)
        # One character a byte: what is ASCII is the same in UTF-8, and a slice has the very bytes.
        self._text = self._body.decode("latin-1")
        self._at = 0
        self._lines = bytearray()
        self._rows = 0
        self._meta: bytes | None = None

    def steps(self) -> Iterator[None]:
        """Yields after every `STEP_BYTES`. Raises `PageUnreadable`."""
        try:
            yield from self._check_encoding()
            yield from self._read_members()
            self.page = self._read_page()
        except RecursionError:
            raise PageUnreadable("it is nested too deeply") from None
        except ValueError:
            raise PageUnreadable("it is no JSON in UTF-8") from None

    def _check_encoding(self) -> Iterator[None]:
        decode = codecs.getincrementaldecoder("utf-8")().decode
        for start in range(0, len(self._body), STEP_BYTES):
            decode(self._body[start : start + STEP_BYTES])
            yield
        decode(b"", final=True)

    def _read_members(self) -> Iterator[None]:
        """All of the outermost object; a name that stands twice would have two meanings."""
        if not self._comes("{"):
            raise PageUnreadable(NOT_A_PAGE)
        found: set[str] = set()
        is_empty = self._comes("}")
        while not is_empty:
            name = self._value()
            if not isinstance(name, str) or not self._comes(":"):
                raise ValueError
            if name in found:
                raise PageUnreadable(f"it has {name[:40]!r} twice")
            if name in ("data", "meta"):
                found.add(name)
            if name == "data":
                yield from self._read_rows()
            else:
                self._skip()
                start = self._at
                self._value()
                if name == "meta":
                    self._meta = self._text[start : self._at].encode("latin-1")
            is_empty = self._closes("}")
        self._skip()
        if self._at != len(self._text):
            raise ValueError
        if len(found) != 2:
            raise PageUnreadable(NOT_A_PAGE)

    def _read_rows(self) -> Iterator[None]:
        if not self._comes("["):
            raise PageUnreadable(NOT_A_PAGE)
        paused_at = self._at
        is_over = self._comes("]")
        while not is_over:
            self._skip()
            start = self._at
            self._value()
            self._add_row(self._text[start : self._at])
            is_over = self._closes("]")
            if self._at - paused_at > STEP_BYTES:
                paused_at = self._at
                yield

    def _add_row(self, text: str) -> None:
        if "\n" in text or "\r" in text:
            text = text.replace("\n", "").replace("\r", "")
        row = text.encode("latin-1")
        self._lines += unlike_own_line(row) if row.startswith(OWN_LINE_BEGINS) else row
        self._lines += b"\n"
        self._rows += 1

    def _read_page(self) -> Page:
        # Apart from the rows, since a cursor's characters count, and not its bytes.
        meta = json.loads(self._meta or b"null")
        pagination = meta.get("pagination") if isinstance(meta, dict) else None
        if not isinstance(pagination, dict) or not isinstance(pagination.get("has_more"), bool):
            raise PageUnreadable(NOT_A_PAGE)
        cursor = pagination.get("next_cursor")
        if isinstance(cursor, int) and not isinstance(cursor, bool):
            cursor = str(cursor)
        if cursor is not None and not isinstance(cursor, str):
            raise PageUnreadable(NOT_A_PAGE)
        if cursor is not None and len(cursor) > LONGEST_CURSOR:
            raise PageUnreadable(f"its next_cursor is longer than {LONGEST_CURSOR} characters")
        return Page(self._lines, self._rows, pagination["has_more"], cursor or None)

    def _value(self) -> Any:
        self._skip()
        value, self._at = _values.raw_decode(self._text, self._at)
        return value

    def _closes(self, bracket: str) -> bool:
        """Whether ``bracket`` comes; else a comma must."""
        if self._comes(bracket):
            return True
        if not self._comes(","):
            raise ValueError
        return False

    def _comes(self, character: str) -> bool:
        self._skip()
        if self._text[self._at : self._at + 1] != character:
            return False
        self._at += 1
        return True

    def _skip(self) -> None:
        blanks = _skip_blanks(self._text, self._at)
        assert blanks is not None  # noqa: S101  # it matches nothing, too
        self._at = blanks.end()
