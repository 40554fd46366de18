"""Admin routes for tenants: list, show, describe, confirm an account, disconnect."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request

from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.broker.grants.disconnect import disconnect
from ignition_broker.broker.grants.tenants import describe_tenant, list_tenants, show_tenant
from ignition_broker.model import GrantStatus, TenantSummary
from ignition_broker.tenant_labels import LABEL_PATTERN, MOST_LABELS, LabelRefused, parse_labels
from ignition_broker.web.admin.router import ONE_GRANT, UNREADABLE_BODY, admin_router
from ignition_broker.web.admin.tenant_bodies import (
    Allowance,
    ConfirmedAccount,
    ShownTenant,
    Tenant,
    TenantDescription,
    TenantPage,
)
from ignition_broker.web.cursors import CURSOR_PATTERN, cursor_at, grant_at
from ignition_broker.web.dependencies import (
    AdminCaller,
    AdminGrant,
    BrokerServices,
    PageLimit,
    actor_of,
)
from ignition_broker.web.openapi import problems

router = admin_router()


@router.get("/tenants", responses=problems("unknown-client", "invalid-request"))
async def tenants(
    _caller: AdminCaller,
    services: BrokerServices,
    status: GrantStatus | None = None,
    client: Annotated[str | None, Query(description="Only of this OAuth client.")] = None,
    label: Annotated[
        list[str],
        Query(
            description="`key=value`; given more than once, a tenant must have all.",
            json_schema_extra={
                "maxItems": MOST_LABELS,
                "items": {"type": "string", "pattern": f"^{LABEL_PATTERN}$"},
            },
        ),
    ] = [],  # noqa: B006  # FastAPI copies it
    cursor: Annotated[str, Query(pattern=f"{CURSOR_PATTERN}|^$")] = "",
    limit: PageLimit = 100,
) -> TenantPage:
    """Without ``client``, a tenant has a row for each OAuth client."""
    if client is not None:
        services.clients.checked(client)
    try:
        labels = parse_labels(label, "label")
    except LabelRefused as error:
        raise InvalidRequest(f"{error}.") from None
    found = await list_tenants(
        services.database,
        after=grant_at(cursor),
        status=status,
        labels=labels,
        limit=limit + 1,
        client=client,
    )
    page = found[:limit]
    more = cursor_at(page[-1].grant) if len(found) > limit else None
    return TenantPage(tenants=[_tenant(row) for row in page], next_cursor=more)


@router.get(
    "/tenants/{tenant}",
    responses=ONE_GRANT,
)
async def tenant(grant: AdminGrant, services: BrokerServices) -> ShownTenant:
    return await _shown(services, grant)


@router.put(
    "/tenants/{tenant}",
    responses={
        400: UNREADABLE_BODY,
        **ONE_GRANT,
        **problems("request-timeout", "body-too-large"),
    },
)
async def describe(
    request: Request,
    grant: AdminGrant,
    described: TenantDescription,
    caller: AdminCaller,
    services: BrokerServices,
) -> ShownTenant:
    """Sets its name, its labels or both."""
    await describe_tenant(
        services.database, grant, described.description(), actor_of(request, caller)
    )
    return await _shown(services, grant)


@router.post(
    "/tenants/{tenant}/disconnect",
    responses=ONE_GRANT,
)
async def disconnect_tenant(
    request: Request, grant: AdminGrant, caller: AdminCaller, services: BrokerServices
) -> ShownTenant:
    await disconnect(
        services.database,
        services.cipher,
        services.revocations,
        services.held_grants,
        grant,
        actor_of(request, caller),
    )
    return await _shown(services, grant)


@router.post(
    "/tenants/{tenant}/confirm-account",
    responses={
        400: UNREADABLE_BODY,
        **ONE_GRANT,
        **problems("account-mismatch", "request-timeout", "body-too-large"),
    },
)
async def confirm_account(
    request: Request,
    grant: AdminGrant,
    confirmed: ConfirmedAccount,
    caller: AdminCaller,
    services: BrokerServices,
) -> ShownTenant:
    """Connects the tenant to its ``pending_account``, in place of the account of before."""
    await services.held_grants.confirm(grant, confirmed.account_id, actor_of(request, caller))
    return await _shown(services, grant)


@router.post(
    "/tenants/{tenant}/discard-account",
    responses=ONE_GRANT,
)
async def discard_account(
    request: Request, grant: AdminGrant, caller: AdminCaller, services: BrokerServices
) -> ShownTenant:
    """Forgets the grant of the tenant's ``pending_account``. The earlier one stays."""
    await services.held_grants.discard(grant, actor_of(request, caller))
    return await _shown(services, grant)


async def _shown(services: BrokerServices, grant: str) -> ShownTenant:
    shown = _tenant(await show_tenant(services.database, grant))
    use = None if services.allowance is None else await services.allowance.use(grant)
    allowance = None if use is None else Allowance.model_validate(use, from_attributes=True)
    return ShownTenant(**shown.model_dump(), allowance=allowance)


def _tenant(row: TenantSummary) -> Tenant:
    return Tenant.model_validate(row, from_attributes=True)
