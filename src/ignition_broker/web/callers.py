"""Who calls, read off the raw headers; and what a key must cover."""

from __future__ import annotations

from starlette.types import Scope

from ignition_broker.broker.access import Access
from ignition_broker.broker.errors import Forbidden, Unauthenticated
from ignition_broker.model import Caller
from ignition_broker.model import Scope as KeyScope

SHOW_A_KEY = "Show an API key: Authorization: Bearer ibk_…"


async def caller_of(scope: Scope, access: Access) -> Caller:
    """From memory if it can be. Raises `Unauthenticated`, or `Unavailable`."""
    key = bearer(scope)
    return access.held(key) or await access.authenticate(key)


def bearer(scope: Scope) -> str:
    """The key of the one Authorization header (RFC 6750 section 2.1)."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        raise Unauthenticated(SHOW_A_KEY)
    scheme, _, key = values[0].partition(b" ")
    if scheme.lower() != b"bearer" or not key.strip():
        raise Unauthenticated(SHOW_A_KEY)
    return str(key.strip().decode("latin-1"))


def check(caller: Caller, scope: KeyScope, tenant: str | None = None) -> None:
    """Raises `Forbidden`."""
    if not caller.may(scope):
        raise Forbidden(f"This needs an API key with the scope {scope.value}.", tenant=tenant)
    if tenant is not None and not caller.covers(tenant):
        raise Forbidden("This API key does not cover this tenant.", tenant=tenant)
