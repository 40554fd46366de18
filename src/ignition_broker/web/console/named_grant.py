"""The grant that a page's query or form names: its tenant, and its OAuth client if not the default
one."""

from __future__ import annotations

from starlette.responses import RedirectResponse, Response

from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.grant_ids import DEFAULT_CLIENT
from ignition_broker.model import TENANT_ID_RULE, is_tenant_id
from ignition_broker.web.client_names import ClientNames
from ignition_broker.web.console.return_paths import address, sign_in_address


def named_grant(clients: ClientNames, tenant: str, client: str) -> str:
    """The grant's id. Raises `InvalidRequest` and `UnknownClient`."""
    if not is_tenant_id(tenant):
        raise InvalidRequest(f"tenant: must be {TENANT_ID_RULE}.")
    return clients.grant_at(tenant, client)


def naming(tenant: str, client: str) -> list[tuple[str, str]]:
    """The query that names it."""
    return [("tenant", tenant), *([] if client == DEFAULT_CLIENT else [("client", client)])]


def sign_in_to(path: str, tenant: str, client: str) -> Response:
    """Leads to the sign-in, and from there to ``path`` with the grant's query."""
    return RedirectResponse(sign_in_address(address(path, naming(tenant, client))), 303)
