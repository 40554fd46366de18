"""What all routes of the admin API have in common."""

from __future__ import annotations

from fastapi import APIRouter

from ignition_broker.web.openapi import problem_answer, problems

ANY_GRANT = problems("unknown-client", "not-found", "invalid-request")
ONE_GRANT = problems("unknown-tenant", "unknown-client", "not-found", "invalid-request")
NO_STORE = {"Cache-Control": "no-store"}
# In no encoding of JSON; what can be read and is malformed is 422.
UNREADABLE_BODY = problem_answer(400, "invalid-request")


def admin_router() -> APIRouter:
    """A router for a part of the admin API.

    Each part has the whole prefix: within a router of routers, FastAPI tells the metrics and the
    audit trail only the inner part of a route's path.
    """
    return APIRouter(
        prefix="/admin",
        tags=["admin"],
        responses=problems("unauthenticated", "forbidden", "too-many-attempts", "unavailable"),
    )
