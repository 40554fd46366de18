"""Reads the caller's key off the raw headers, and checks what the key covers."""

from __future__ import annotations

from starlette.types import Scope

from ignition_broker.broker.callers.access import Access
from ignition_broker.broker.errors import Forbidden, Unauthenticated
from ignition_broker.model import Caller
from ignition_broker.model import Scope as KeyScope

SHOW_A_KEY = "Show an API key: Authorization: Bearer ibk_…"


def held_caller(scope: Scope, access: Access) -> Caller | None:
    """The caller, if memory knows the key; else None. Raises `Unauthenticated` where the request
    does not have exactly one key."""
    return access.from_memory(bearer(scope))


async def caller_of(scope: Scope, access: Access) -> Caller:
    """The caller, from memory where possible, else from the database.

    Raises `Unauthenticated`, `TooManyAttempts` or `Unavailable`.
    """
    key = bearer(scope)
    return access.from_memory(key) or await access.authenticate(key, address_of(scope))


def address_of(scope: Scope) -> str | None:
    """The address of the caller: the other end of the connection, or what a trusted proxy says it
    is (`BROKER_TRUSTED_PROXIES`)."""
    client = scope.get("client")
    return None if client is None else str(client[0])


def bearer(scope: Scope) -> bytes:
    """The key in the Authorization header (RFC 6750 section 2.1). Raises `Unauthenticated` for
    none, for two headers, and for another scheme."""
    shown: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            if shown is not None:
                raise Unauthenticated(SHOW_A_KEY)
            shown = value
    if shown is None or shown[:7].lower() != b"bearer ":
        raise Unauthenticated(SHOW_A_KEY)
    key = shown[7:].strip()
    if not key:
        raise Unauthenticated(SHOW_A_KEY)
    return key


def check(caller: Caller, scope: KeyScope, tenant: str | None = None) -> None:
    """Raises `Forbidden` unless the key has the scope and, where one is given, covers the
    tenant."""
    if not caller.may(scope):
        text = f"This needs an API key with the scope {scope.value}."
        raise Forbidden(text, tenant=tenant, key=caller.name)
    if tenant is not None and not caller.covers(tenant):
        raise Forbidden("This API key does not cover this tenant.", tenant=tenant, key=caller.name)


def check_paths(caller: Caller, scope: Scope, raw_path: bytes, tenant: str) -> None:
    """Checks a proxied call against the path rules of its key; ``raw_path`` is what follows
    ``/proxy/{tenant}``. Raises `Forbidden`."""
    # An empty path goes to the API as "/".
    objection = caller.path_rules.objection(scope["method"], raw_path or b"/", scope["headers"])
    if objection is not None:
        raise Forbidden(objection, tenant=tenant, key=caller.name)


def check_may_see_tokens(caller: Caller, tenant: str) -> None:
    """Raises `Forbidden` for a key with path rules: with the token itself, any path can be
    called."""
    if caller.paths is not None:
        raise Forbidden(
            "This API key is held to paths, which the broker's own proxy alone enforces; call "
            "/proxy/{tenant}/{path}, or take a key without paths.",
            tenant=tenant,
            key=caller.name,
        )
