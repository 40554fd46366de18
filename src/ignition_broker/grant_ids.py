"""The ids of grants: a tenant has one grant at each OAuth client. Pure.

The id of a grant is derived from its natural key: the tenant's id alone for the client `default`,
and ``tenant@client`` for any other. No tenant id holds an ``@``, so the two can't be confused, and
whatever is keyed by a tenant's id (rows, memory, NOTIFY, the binding of ciphertexts) is keyed by a
grant's without a change. Grant ids stay inside: callers write and see tenant and client.
"""

from __future__ import annotations

import re
from typing import Final

DEFAULT_CLIENT: Final = "default"
"""The OAuth client of the plain settings."""
SEPARATOR: Final = "@"
CLIENT_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,31}$"
CLIENT_NAME_RULE: Final = "1 to 32 of a-z, 0-9, '_' and '-', beginning with a letter or digit"
"""What a client's name must be, for messages."""

_CLIENT = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


def is_client_name(text: str) -> bool:
    """Whether ``text`` is well formed as a client's name; there need be no such client."""
    return _CLIENT.fullmatch(text) is not None


def grant_id(tenant: str, client: str = DEFAULT_CLIENT) -> str:
    """The id of the tenant's grant at that client. Both must have been checked."""
    return tenant if client == DEFAULT_CLIENT else f"{tenant}{SEPARATOR}{client}"


def tenant_of(grant: str) -> str:
    """The tenant's id."""
    return grant.partition(SEPARATOR)[0]


def client_of(grant: str) -> str:
    """The client's name."""
    return grant.partition(SEPARATOR)[2] or DEFAULT_CLIENT


def quoted(grant: str) -> str:
    """The grant as messages name it: the tenant, and the client where it is another than the
    default."""
    tenant, separator, client = grant.partition(SEPARATOR)
    return f"{tenant!r} at the client {client!r}" if separator else repr(tenant)
