"""Which lines of a stream are the broker's own: its last one, and checkpoints. Pure.

A line is the broker's own if it begins with the bytes `OWN_LINE_BEGINS`. A row that begins so gets
a blank behind its brace, which JSON does not mind.
"""

from __future__ import annotations

from typing import Final

OWN_LINE_BEGINS: Final = b'{"broker":'


def unlike_own_line(row: bytes) -> bytes:
    """The same row, in bytes that no line of the broker's own begins with."""
    return b"{ " + row[1:]
