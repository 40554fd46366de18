"""The pages that a sign-in may lead back to: a closed set of our own."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, urlencode

from ignition_broker.grant_ids import CLIENT_PATTERN
from ignition_broker.model import TENANT_PATTERN
from ignition_broker.web.cursors import CURSOR_PATTERN

HOME: Final = "/"
CONNECT: Final = "/auth"
CONFIRM_DISCONNECT: Final = "/disconnect"
CONFIRM_ACCOUNT: Final = "/confirm-account"
TENANTS: Final = "/tenants"
TENANT: Final = "/tenant"
API_KEYS: Final = "/api-keys"
NEW_API_KEY: Final = "/api-keys/new"
ROTATE_API_KEY: Final = "/api-keys/rotate"
REVOKE_API_KEY: Final = "/api-keys/revoke"
WEBHOOKS: Final = "/webhooks"
NEW_WEBHOOK: Final = "/webhooks/new"
WEBHOOK: Final = "/webhook"
DELETE_WEBHOOK: Final = "/webhook/delete"
AUDIT: Final = "/audit"
SESSIONS: Final = "/sessions"
SETTINGS: Final = "/settings"

_TENANT = re.compile(TENANT_PATTERN)
_GRANT = {"tenant": _TENANT, "client": re.compile(CLIENT_PATTERN)}
_WORD = re.compile(r"[a-z_]{1,32}")
_LINE = re.compile(r"[\x20-\x7e]{0,300}")
_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_WEBHOOK = re.compile(r"[a-z]+_[0-9a-f]{20}")
_NUMBER = re.compile(r"[0-9]{1,18}")
_TYPED = re.compile(r"[\x20-\x7e\r\n]{0,1000}")
# A sign-on keeps the address in a cookie, and browsers take 4 KiB of one.
LONGEST_ADDRESS: Final = 1500
_PAGES: Final[dict[str, dict[str, re.Pattern[str]]]] = {
    HOME: {},
    TENANTS: {"after": re.compile(CURSOR_PATTERN), "status": _WORD, "q": _LINE, "label": _LINE},
    TENANT: _GRANT,
    CONNECT: _GRANT,
    CONFIRM_DISCONNECT: _GRANT,
    CONFIRM_ACCOUNT: _GRANT,
    API_KEYS: {},
    ROTATE_API_KEY: {"name": _KEY_NAME},
    REVOKE_API_KEY: {"name": _KEY_NAME},
    WEBHOOKS: {},
    NEW_WEBHOOK: {"target": _LINE},
    WEBHOOK: {"which": _WEBHOOK, "before": _NUMBER},
    DELETE_WEBHOOK: {"which": _WEBHOOK},
    AUDIT: dict.fromkeys(("tenant", "actor", "action", "since", "until", "before"), _LINE),
    SESSIONS: {},
    SETTINGS: {},
    NEW_API_KEY: dict.fromkeys(("name", "scopes", "tenants", "paths", "days"), _TYPED),
}
_NEED_A_FRESH_SIGN_IN: Final = frozenset(
    {
        CONFIRM_DISCONNECT,
        CONFIRM_ACCOUNT,
        NEW_API_KEY,
        ROTATE_API_KEY,
        REVOKE_API_KEY,
        NEW_WEBHOOK,
        DELETE_WEBHOOK,
    }
)
# Some actions on these pages need one: replacing a grant, a webhook's secret.
_MAY_NEED_ONE: Final = _NEED_A_FRESH_SIGN_IN | {CONNECT, API_KEYS, WEBHOOK}


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
