"""What an admin sees of a tenant's allowance."""

from __future__ import annotations

from dataclasses import dataclass

from ignition_broker.broker.allowance.counting import counted, window_at
from ignition_broker.broker.allowance.reports import Allowance, Report
from ignition_broker.storage.allowance import Book


@dataclass(frozen=True, slots=True)
class KeyUse:
    """``used``: calls that the key made in the window."""

    key: str
    used: int
    weight: int
    reserve: int


@dataclass(frozen=True, slots=True)
class AllowanceUse:
    """A tenant's window as it was last reported, which may be some seconds ago.

    ``calls`` in ``seconds``; ``used``: by API keys of the broker; ``used_elsewhere``: by others, as
    far as Ignition's headers tell. ``resets_in``: seconds until the window ends.
    """

    calls: int
    seconds: float
    used: int
    used_elsewhere: int
    remaining: int
    resets_in: float
    keys: tuple[KeyUse, ...]


def allowance_use(book: Book, allowance: Allowance) -> AllowanceUse:
    """Reads a tenant's book; a window that is over has no use."""
    nobody = Report("", 0, False, 0, 0, False, None)  # noqa: FBT003
    window = window_at(book, None, allowance)
    count = counted(book, nobody, window, allowance, is_current=False)
    keys: dict[str, KeyUse] = {}
    for use in book.uses:
        if use.number == window.number:
            before = keys[use.api_key].used if use.api_key in keys else 0
            keys[use.api_key] = KeyUse(use.api_key, before + use.used, use.weight, use.reserve)
    is_begun = book.window is not None and book.window.number == window.number
    return AllowanceUse(
        calls=count.window.calls,
        seconds=allowance.seconds,
        used=count.used,
        used_elsewhere=max(count.window.others, 0),
        remaining=max(count.room + count.elsewhere, 0),
        resets_in=max(window.ends_at - book.now, 0.0) if is_begun else 0.0,
        keys=tuple(sorted(keys.values(), key=lambda one: (-one.used, one.key))),
    )
