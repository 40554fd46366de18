"""What is wrong with ``IGNITION_CLIENTS``: one setting that can have several faults."""

from __future__ import annotations


class ClientFaults(ValueError):
    """``lines``: one a fault, without the setting's name."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines
