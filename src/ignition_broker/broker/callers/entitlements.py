"""Which scopes, tenants and paths an API key, or a rule for JWTs, may grant together."""

from __future__ import annotations

from collections.abc import Sequence

from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.model import Scope
from ignition_broker.path_rules import MalformedRule, check_rules
from ignition_broker.tenant_patterns import is_tenant_pattern

HEAVIEST = 1000
LARGEST_RESERVE = 1_000_000


def check_allowance(scopes: Sequence[str], weight: int, reserve: int) -> None:
    """Checks a key's weight and reserve (docs/allowance.md).

    Raises `InvalidRequest`, whose text names the field and how to correct it.
    """
    if not 1 <= weight <= HEAVIEST:
        raise InvalidRequest(f"allowance_weight: 1 to {HEAVIEST}, such as 2 for a double share.")
    if not 0 <= reserve <= LARGEST_RESERVE:
        raise InvalidRequest(f"allowance_reserve: from 0 to {LARGEST_RESERVE} calls, such as 50.")
    if reserve and Scope.PROXY not in scopes:
        raise InvalidRequest(
            "allowance_reserve: only a key with the scope 'proxy' makes calls; give 0 or add it."
        )


def check_entitlements(
    scopes: Sequence[str], tenants: Sequence[str], paths: Sequence[str] | None
) -> None:
    """Checks what is to be granted.

    Args:
        scopes: values of `Scope`.
        tenants: tenant ids and patterns (`tenant_patterns`); may be empty for an admin.
        paths: rules for calls through the proxy (`path_rules`); None: every call.

    Raises:
        InvalidRequest: the text names the field and how to correct it.
    """
    known = {scope.value for scope in Scope}
    if not scopes or not set(scopes) <= known:
        raise InvalidRequest(f"scopes: one or more of {', '.join(sorted(known))}.")
    if not tenants and "admin" not in scopes:
        raise InvalidRequest("tenants: name at least one, such as 'acme', 'beta-*' or '*'.")
    for pattern in tenants:
        if not is_tenant_pattern(pattern):
            raise InvalidRequest(f"tenants: {pattern!r} is no tenant id or pattern.")
    if paths is None:
        return
    try:
        check_rules(paths)
    except MalformedRule as error:
        raise InvalidRequest(f"paths: {error}") from None
    if set(scopes) != {Scope.PROXY}:
        raise InvalidRequest(
            "scopes: a key with paths has the scope 'proxy' alone, since any other gets round them."
        )
