"""The ledger's memory across restarts: one JSON line per event, appended."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, get_args

from ignition_broker.fake_ignition.events import Event

EVENT_TYPES = {event_type.__name__: event_type for event_type in get_args(Event)}


class JournalError(Exception):
    """The file is no journal of ours."""


class Journal:
    """Appends events to a file that one process at a time writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def read(self) -> Iterator[Event]:
        """Yield what earlier runs wrote; a last line cut short by a kill is left out."""
        if not self._path.exists():
            return
        *complete, _cut_short = self._path.read_bytes().split(b"\n")
        for number, line in enumerate(complete, start=1):
            try:
                fields = json.loads(line)
                event: Event = EVENT_TYPES[fields.pop("event")](**fields)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise JournalError(f"{self._path}, line {number} is not a ledger event") from error
            yield event

    def append(self, event: Event) -> None:
        """Hand one event to the operating system, so that it outlives a kill of this process."""
        if self._file is None:
            self._file = self._open_after_the_last_complete_line()
        line = {"event": type(event).__name__, **asdict(event)}
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; the next append opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open_after_the_last_complete_line(self) -> BinaryIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("ab+")
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        return file
