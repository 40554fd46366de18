"""Which statements wait for locked rows."""

from __future__ import annotations

import importlib
import pkgutil
import re

from sqlalchemy import TextClause

from ignition_broker import storage

ONE_ROW = {
    # By its key: of one tenant, session, link, key or authorization.
    "allowance.WRITE": "the tenant's rows, for one statement: each replica waits for its turn",
    "api_keys.CLEAR_REPLACED": "the name's rows",
    "api_keys.FORGET_REPLACED": "the name's rows",
    "api_keys.SHORTEN_REPLACED": "the name's rows",
    "api_keys.CREATE": "the name's row",
    "api_keys.LOCK": "the name's row",
    "api_keys.REPLACE": "the name's row",
    "api_keys.REVOKE": "the name's row",
    "authorizations.TAKE": "the state's row",
    "callbacks.CONNECTED": "the state's row",
    "callbacks.FORGET": "the state's row",
    "callbacks.JUDGE": "the state's maker and link: neither may be left out",
    "conditions.MEET": "the condition's row",
    "connect_links.REVOKE_ALL": "the tenant's links: none may be left out",
    "connect_links.REVOKE": "the tenant's links: none may be left out",
    "connect_links.SPEND": "the link's row",
    "accounts.NOTE": "the tenant's row",
    "deliveries.FAILED": "the rows of one claim",
    "deliveries.GIVE_BACK": "the rows of one claim",
    "delivery_log.RESEND": "the delivery's row",
    "deliveries.TAKEN": "the rows of one claim, and their destination's",
    "grants.DISCONNECT": "the tenant's row",
    "held_grants.DROP": "the tenant's row",
    "held_grants.HOLD": "the tenant's row",
    "held_grants.NAME": "the tenant's row",
    "held_grants.REPLACE": "the tenant's row",
    "leases.EXTEND": "the tenant's row",
    "leases.GIVE_BACK": "the tenant's row",
    "refresh_hours.ADD": "the hour's rows, in one order, for one statement",
    "refresh_failures.RECORD_ANSWER_LOST": "the tenant's row",
    "refresh_failures.RECORD_NOT_USED": "the tenant's row",
    "refresh_failures.RECORD_REFUSAL": "the tenant's row",
    "leases.SET_ASIDE": "the tenant's row",
    "new_tokens.STORE_CONNECTED": "the tenant's row",
    "new_tokens.STORE_REFRESHED": "the tenant's row",
    "pending_revocations.POSTPONE": "the revocation's row",
    "pending_revocations.REPLACE": "the revocation's row",
    "pending_revocations.SETTLE": "the revocation's row",
    "restoring.RESTORE": "the tenant's row",
    "refresh_tokens.STORE_REFRESH_TOKEN": "the tenant's row",
    "renewability.NOTE_EMPTY": "the tenant's row",
    "sessions.END": "the session's row",
    "tenants.DESCRIBE": "the tenant's row",
    "webhooks.AFFIRM": "the destinations of the settings, in the order of their ids",
    "webhooks.REMOVE": "the destination's row",
    "webhooks.REPLACE_SEALED": "the destination's row",
    "webhooks.REPLACE_SECRET": "the destination's row",
    "tenants.END_BEGUN": "the tenant's row",
    "tenants.LOCK": "the tenant's row",
}


def statements_that_lock() -> dict[str, str]:
    found = {}
    for found_module in pkgutil.iter_modules(storage.__path__, "ignition_broker.storage."):
        module = importlib.import_module(found_module.name)
        for name, value in vars(module).items():
            if isinstance(value, TextClause):
                words = str(value)
                if re.search(r"\b(UPDATE|DELETE FROM|FOR SHARE)\b", words):
                    found[f"{module.__name__.rpartition('.')[2]}.{name}"] = words
    return found


def test_every_statement_that_locks_rows_skips_locked_ones_or_is_about_one_row():
    """A new statement has to be judged: does it wait for one tenant's row while it holds, or is
    to come to, the rows of others?"""
    waits = {name for name, words in statements_that_lock().items() if "SKIP LOCKED" not in words}
    assert len(statements_that_lock()) > 25
    assert waits == set(ONE_ROW)
