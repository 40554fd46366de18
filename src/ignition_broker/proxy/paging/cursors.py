"""Cursors: where they stand in a query, and whether they go round in circles. Pure."""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

from ignition_broker.proxy.paging.errors import PageUnreadable

_NAME = b"cursor"


def with_cursor(query: bytes, cursor: str) -> bytes:
    """``query`` with this cursor in place of its own, or at its end. All else stays as it is, byte
    for byte. Raises `PageUnreadable` for a cursor that UTF-8 can't hold."""
    try:
        wanted = _NAME + b"=" + quote(cursor, safe="").encode("ascii")
    except UnicodeEncodeError:
        raise PageUnreadable("its next_cursor is no Unicode text") from None
    parts: list[bytes] = []
    is_placed = False
    for part in query.split(b"&") if query else []:
        if not _is_cursor(part):
            parts.append(part)
        elif not is_placed:
            parts.append(wanted)
            is_placed = True
    return b"&".join(parts if is_placed else [*parts, wanted])


def cursor_in(query: bytes) -> str | None:
    """The first cursor of ``query``; None where it has none."""
    for part in query.split(b"&"):
        if _is_cursor(part):
            return _decoded(part.partition(b"=")[2]).decode("utf-8", "replace")
    return None


class CursorCycle:
    """Notices that cursors repeat, by one remembered cursor (Brent's algorithm) and the last one,
    however many there are."""

    def __init__(self, first: str | None) -> None:
        self._last = self._remembered = first
        self._steps, self._limit = 0, 1

    def is_closed_by(self, cursor: str) -> bool:
        """Whether this next cursor was there before; takes it as the last one."""
        if cursor in (self._last, self._remembered):
            return True
        self._last = cursor
        self._steps += 1
        if self._steps == self._limit:
            self._remembered = cursor
            self._steps, self._limit = 0, self._limit * 2
        return False


def _is_cursor(part: bytes) -> bool:
    return _decoded(part.partition(b"=")[0]) == _NAME


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))
