"""Patterns in which ``*`` stands for any characters and ``?`` for any one. Pure.

No regular expression: one with several ``.*`` tries every division of the text among them, which
takes minutes on a text that is made for it. Here each piece between two stars is searched for once,
from left to right, and the time grows with the text's length alone.
"""

from __future__ import annotations

from functools import lru_cache


def matches_wildcards(pattern: str, text: str) -> bool:
    """Whether all of ``text`` fits ``pattern``; upper and lower case differ."""
    return _compiled(pattern).matches(text)


class WildcardPattern:
    """The pieces between the stars. The first must stand at the beginning and the last at the
    end; of the others the leftmost place is as good as any."""

    __slots__ = ("_first", "_last", "_least", "_middle", "_stars")

    def __init__(self, pattern: str) -> None:
        first, *others = pattern.split("*")
        self._stars = len(others)
        self._first = _Piece(first)
        self._last = _Piece(others.pop() if others else "")
        self._middle = tuple(_Piece(piece) for piece in others if piece)
        self._least = len(pattern) - self._stars

    def matches(self, text: str) -> bool:
        if len(text) < self._least or (not self._stars and len(text) != self._least):
            return False
        end = len(text) - self._last.length
        if not self._first.stands_at(text, 0) or not self._last.stands_at(text, end):
            return False
        position = self._first.length
        for piece in self._middle:
            found = piece.find(text, position, end)
            if found < 0:
                return False
            position = found + piece.length
        return True


class _Piece:
    """Literal but for ``?``."""

    __slots__ = ("_any", "_bits", "_text", "length")

    def __init__(self, text: str) -> None:
        self._text = text
        self.length = len(text)
        self._any = _places(text, "?")
        self._bits = {c: _places(text, c) for c in set(text) - {"?"}} if self._any else {}

    def stands_at(self, text: str, position: int) -> bool:
        if not self._any:
            return text.startswith(self._text, position)
        there = text[position : position + self.length]
        return all(c in ("?", seen) for c, seen in zip(self._text, there, strict=True))

    def find(self, text: str, start: int, end: int) -> int:
        """The leftmost place between ``start`` and ``end``; -1: none."""
        if not self._any:
            return text.find(self._text, start, end)
        # Shift-And: bit n of `reached` says that the last n+1 characters fit the piece's first.
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
