"""How far a stream has come, and the line that says so. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ignition_broker.proxy.paging.page_reader import Page


@dataclass(slots=True)
class Progress:
    """How far a stream has come. ``cursor`` is that of the first page that was not delivered; None:
    there is none, or it is not known."""

    rows: int = 0
    pages: int = 0
    cursor: str | None = None
    is_complete: bool = False

    def take(self, page: Page) -> None:
        """``page`` was delivered."""
        self.rows += page.rows
        self.pages += 1
        self.cursor = page.next_cursor if page.has_more else None
        self.is_complete = not page.has_more

    def line(self, error: Mapping[str, object] | None = None) -> bytes:
        """``error``: why the stream ends here, as a problem's members."""
        told: dict[str, object] = {
            "complete": self.is_complete,
            "cursor": self.cursor,
            "rows": self.rows,
            "pages": self.pages,
        }
        if error is not None:
            told["error"] = error
        return json.dumps({"broker": told}, separators=(",", ":")).encode("ascii") + b"\n"
