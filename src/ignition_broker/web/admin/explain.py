"""Admin route that explains why a tenant's grant is as it is."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ignition_broker.broker.explanations.causes import Confidence
from ignition_broker.broker.explanations.explain import explain
from ignition_broker.web.admin.router import ONE_GRANT, admin_router
from ignition_broker.web.dependencies import AdminGrant, BrokerServices

router = admin_router()


class Evidence(BaseModel):
    """``event_id``: of the event in the audit trail that says it."""

    model_config = ConfigDict(from_attributes=True)

    what: str
    at: datetime | None
    event_id: int | None


class Cause(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    code: str
    confidence: Confidence
    text: str
    next_step: str
    evidence: list[Evidence]


class Explanation(BaseModel):
    """``causes``: what fits best comes first."""

    model_config = ConfigDict(from_attributes=True)

    tenant: str
    client: str
    status: str
    causes: list[Cause]
    tells_apart: Annotated[
        str | None, Field(description="What would show which of several causes it was.")
    ]


@router.get("/tenants/{tenant}/explain", responses=ONE_GRANT)
async def explain_tenant(grant: AdminGrant, services: BrokerServices) -> Explanation:
    """Why the grant is as it is, by its row and the audit trail, with the evidence and what to do
    next."""
    found = await explain(services.database, services.cipher, grant)
    return Explanation.model_validate(found, from_attributes=True)
