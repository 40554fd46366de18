"""The pages that a sign-in may lead back to: a closed set of our own."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, urlencode

from ignition_broker.model import TENANT_PATTERN

HOME: Final = "/"
CONNECT: Final = "/auth"
CONFIRM_DISCONNECT: Final = "/disconnect"
API_KEYS: Final = "/api-keys"
NEW_API_KEY: Final = "/api-keys/new"

_TENANT = re.compile(TENANT_PATTERN)
_WORD = re.compile(r"[a-z_]{1,32}")
_TYPED = re.compile(r"[\x20-\x7e\r\n]{0,1000}")
# A sign-on keeps the address in a cookie, and browsers take 4 KiB of one.
LONGEST_ADDRESS: Final = 1500
_PAGES: Final[dict[str, dict[str, re.Pattern[str]]]] = {
    HOME: {"after": _TENANT, "status": _WORD},
    CONNECT: {"tenant": _TENANT},
    CONFIRM_DISCONNECT: {"tenant": _TENANT},
    API_KEYS: {},
    NEW_API_KEY: dict.fromkeys(("name", "scopes", "tenants", "paths", "days"), _TYPED),
}
_NEED_A_FRESH_SIGN_IN: Final = frozenset({CONFIRM_DISCONNECT, NEW_API_KEY})
# Some actions on these pages need one: replacing a grant, revoking a key.
_MAY_NEED_ONE: Final = _NEED_A_FRESH_SIGN_IN | {CONNECT, API_KEYS}


def own_page(return_to: str) -> str:
    """The address of one of the pages, built from the known parts of ``return_to``; else `HOME`.

    A query that is too long to be kept in a cookie is left out.
    """
    path, _separator, query = return_to.partition("?")
    if path not in _PAGES:
        return HOME
    known = _PAGES[path]
    try:
        asked = parse_qsl(query, max_num_fields=20)
    except ValueError:
        asked = []
    written = address(path, [(n, v) for n, v in asked if n in known and known[n].fullmatch(v)])
    return written if len(written) <= LONGEST_ADDRESS else path


def needs_a_fresh_sign_in(return_to: str) -> bool:
    """Whether the page is shown after a fresh sign-in only."""
    return return_to.partition("?")[0] in _NEED_A_FRESH_SIGN_IN


def may_need_a_fresh_sign_in(return_to: str) -> bool:
    """Whether an admin who is signed in may have been sent to sign in again for this page."""
    return return_to.partition("?")[0] in _MAY_NEED_ONE


def address(path: str, query: list[tuple[str, str]]) -> str:
    """``path`` with ``query``, encoded."""
    return f"{path}?{urlencode(query)}" if query else path


def sign_in_address(return_to: str) -> str:
    """The sign-in page that leads back to ``return_to``."""
    return address("/login", [("return_to", own_page(return_to))])
