"""What was typed into the console's forms."""

from __future__ import annotations

from ignition_broker.broker.errors import InvalidRequest


def typed(field: str, text: str) -> str:
    """``text`` without blanks around it. Raises `InvalidRequest` for one that Postgres can't
    hold, which no form of ours sends."""
    if "\0" in text:
        raise InvalidRequest(f"{field}: has a NUL character.")
    return text.strip()
