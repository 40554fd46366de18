"""Text from outside, made fit for a page, a log line or a column. Pure."""

from __future__ import annotations


def printable(text: str, longest: int) -> str:
    """``text`` without control and other unprintable characters, at most ``longest`` of the rest.

    Neither Postgres (NUL) nor a page can hold all that a provider may send.
    """
    return "".join(character for character in text if character.isprintable())[:longest]
