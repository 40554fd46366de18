"""Patterns in which ``*`` stands for any characters and ``?`` for any one. Pure.

These are not regular expressions: one with several ``.*`` backtracks, for minutes on a text that
was made for it. Here each piece between two stars is searched for once, from left to right, so the
time grows linearly with the text.
"""

from __future__ import annotations

from functools import lru_cache


def matches_wildcards(pattern: str, text: str) -> bool:
    """Whether ``pattern`` matches all of ``text``, case-sensitively."""
    return _compiled(pattern).matches(text)


class WildcardPattern:
    """A compiled pattern: the pieces between its stars.

    The first piece must be at the text's beginning and the last at its end. For each of the others
    the leftmost place is taken, since it leaves the most text for the rest.
    """

    __slots__ = ("_first", "_last", "_middle", "_shortest", "_stars")

    def __init__(self, pattern: str) -> None:
        first, *others = pattern.split("*")
        self._stars = len(others)
        self._first = _Piece(first)
        self._last = _Piece(others.pop() if others else "")
        self._middle = tuple(_Piece(piece) for piece in others if piece)
        self._shortest = len(pattern) - self._stars

    def matches(self, text: str) -> bool:
        """Whether it matches all of ``text``."""
        if len(text) < self._shortest or (not self._stars and len(text) != self._shortest):
            return False
        end = len(text) - self._last.length
        if not self._first.is_at(text, 0) or not self._last.is_at(text, end):
            return False
        position = self._first.length
        for piece in self._middle:
            found = piece.find(text, position, end)
            if found < 0:
                return False
            position = found + piece.length
        return True


class _Piece:
    """Literal text, except that ``?`` is any character."""

    __slots__ = ("_any", "_bits", "_text", "length")

    def __init__(self, text: str) -> None:
        self._text = text
        self.length = len(text)
        self._any = _places(text, "?")
        self._bits = {c: _places(text, c) for c in set(text) - {"?"}} if self._any else {}

    def is_at(self, text: str, position: int) -> bool:
        if not self._any:
            return text.startswith(self._text, position)
        there = text[position : position + self.length]
        return all(c in ("?", seen) for c, seen in zip(self._text, there, strict=True))

    def find(self, text: str, start: int, end: int) -> int:
        """The leftmost place between ``start`` and ``end``; -1 where there is none."""
        if not self._any:
            return text.find(self._text, start, end)
        # Shift-And (Baeza-Yates and Gonnet): bit n of `reached` says that the last n+1 characters
        # match the first n+1 of the piece.
        reached, whole = 0, 1 << (self.length - 1)
        for position in range(start, end):
            fits = self._any | self._bits.get(text[position], 0)
            reached = (reached << 1 | 1) & fits
            if reached & whole:
                return position + 1 - self.length
        return -1


def _places(text: str, character: str) -> int:
    return sum(1 << place for place, seen in enumerate(text) if seen == character)


@lru_cache(maxsize=10_000)
def _compiled(pattern: str) -> WildcardPattern:
    return WildcardPattern(pattern)
