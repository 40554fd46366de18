"""How many more calls a key will want before the window ends. Pure.

What is forecast for a small caller is kept from a bulk reader, so it must neither be too little nor
outlast the need: what is kept fades when the key falls silent, and when the window ends.
"""

from __future__ import annotations

import math

PATIENCE_IN_GAPS = 2.0
"""A key that is silent for longer than so many of its usual gaps has probably ended."""
FIRST_GAP = 0.1
"""After one call, the usual gap is guessed: this part of the window."""
PAST_FADES_FROM = 0.25
"""What a key used in earlier windows is kept for it until this part of the window is left, and then
less and less."""
RESERVE_FADES_FROM = 0.1
_SHORTEST_GAP_SECONDS = 0.001


def expected_calls(
    *,
    wanted: int,
    first_seconds_ago: float,
    last_seconds_ago: float,
    used: int,
    past: int,
    left_seconds: float,
    window_seconds: float,
) -> float:
    """How many calls a key will probably want in what is left of the window.

    Args:
        wanted: calls that it made or was refused in this window.
        first_seconds_ago: when it made the first of them.
        last_seconds_ago: when it made the last of them.
        used: calls that it made in this window.
        past: calls that it made in a window before.
        left_seconds: until the window's end.
        window_seconds: the length of a window.
    """
    part_left = min(max(left_seconds / window_seconds, 0.0), 1.0)
    from_past = max(past - used, 0) * min(part_left / PAST_FADES_FROM, 1.0)
    if wanted <= 0 or left_seconds <= 0:
        return from_past
    gap = FIRST_GAP * window_seconds
    if wanted > 1:
        gap = (first_seconds_ago - last_seconds_ago) / (wanted - 1)
    gap = max(gap, _SHORTEST_GAP_SECONDS)
    fading = math.exp(min(1 - last_seconds_ago / (PATIENCE_IN_GAPS * gap), 0.0))
    return max(from_past, left_seconds / gap * fading)


def kept_reserve(reserve: int, *, left_seconds: float, window_seconds: float) -> float:
    """What is kept of a key's reserve: all of it until shortly before the window's end."""
    part_left = min(max(left_seconds / window_seconds, 0.0), 1.0)
    return reserve * min(part_left / RESERVE_FADES_FROM, 1.0)
