"""Where a page of a list ends, as the cursors write it."""

from __future__ import annotations

import re
from typing import Final

from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.grant_ids import CLIENT_PATTERN, SEPARATOR, client_of, grant_id, tenant_of
from ignition_broker.model import TENANT_PATTERN

CURSOR_PATTERN: Final = f"{TENANT_PATTERN[:-1]}(:{CLIENT_PATTERN[1:-1]})?$"


_CURSOR = re.compile(CURSOR_PATTERN)


def is_cursor(text: str) -> bool:
    """Whether ``text`` is one."""
    return _CURSOR.fullmatch(text) is not None


def cursor_at(grant: str) -> str:
    """The tenant's id, with the client behind a colon where it is not the default one."""
    return f"{tenant_of(grant)}:{client_of(grant)}" if SEPARATOR in grant else grant


def grant_at(cursor: str) -> str:
    """The grant's id that `cursor_at` was given; the cursor must match `CURSOR_PATTERN`, or be
    empty."""
    tenant, _, client = cursor.partition(":")
    return grant_id(tenant, client) if client else tenant


def number_at(name: str, text: str | None) -> int | None:
    """The number that the parameter ``name`` holds, if it is given. Raises `InvalidRequest`."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidRequest(f"{name}: take it from what came before.")
    return int(text)
