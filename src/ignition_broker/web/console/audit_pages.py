"""The console's pages for what happened and who did it: the audit trail, and admins' sessions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from ignition_broker.broker.errors import InvalidRequest, NotFound
from ignition_broker.broker.grants.tenants import search_audit
from ignition_broker.model import TENANT_ID_RULE, is_tenant_id
from ignition_broker.storage.audit_search import Criteria
from ignition_broker.web.console.return_paths import AUDIT, SESSIONS, address, sign_in_address
from ignition_broker.web.console.typed import typed
from ignition_broker.web.console_values import iso
from ignition_broker.web.cursors import number_at
from ignition_broker.web.dependencies import BrokerServices, actor_of
from ignition_broker.web.rendering import console_page, failure
from ignition_broker.web.services import Services

router = APIRouter(include_in_schema=False)

EVENTS_SHOWN: Final = 100
MOST_EXPORTED: Final = 100_000
_EXPORTED_AT_ONCE = 1000
ACTIONS: Final = (
    "account_confirm",
    "api_key_create",
    "api_key_revoke",
    "api_key_rotate",
    "call_denied",
    "connect",
    "connect_link_create",
    "connect_link_revoke",
    "database_went_back",
    "disconnect",
    "grant_end",
    "proxy_call",
    "refresh",
    "revoke",
    "session_end",
    "sign_in",
    "sign_out",
    "token_issue",
    "webhook_create",
    "webhook_delete",
)
"""Offered by the form; any other can be typed."""
LineText = Annotated[str, Query(max_length=300)]
FormText = Annotated[str, Form(max_length=2000)]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the form's fields hold, as they were typed."""

    tenant: str
    actor: str
    action: str
    since: str
    until: str

    @property
    def query(self) -> list[tuple[str, str]]:
        fields = ("tenant", "actor", "action", "since", "until")
        return [(name, getattr(self, name)) for name in fields if getattr(self, name)]

    def criteria(self) -> Criteria:
        """Raises `InvalidRequest`, which names the field."""
        if self.tenant and not is_tenant_id(self.tenant):
            raise InvalidRequest(f"Tenant: must be {TENANT_ID_RULE}.")
        return Criteria(
            tenant=self.tenant or None,
            actor=typed("Actor", self.actor) or None,
            action=typed("Action", self.action).replace(" ", "_") or None,
            since=_moment("From", self.since),
            until=_moment("Until", self.until),
        )


@router.get(AUDIT)
async def audit(
    request: Request,
    services: BrokerServices,
    tenant: LineText = "",
    actor: LineText = "",
    action: LineText = "",
    since: LineText = "",
    until: LineText = "",
    before: Annotated[str, Query(max_length=18)] = "",
) -> Response:
    asked = Asked(tenant.strip(), actor.strip(), action, since, until)
    session = await services.sessions.read(request)
    if session is None:
        return RedirectResponse(sign_in_address(address(AUDIT, asked.query)), 303)
    error, events, older, looked_back_to = None, [], None, None
    try:
        found = await search_audit(
            services.database,
            asked.criteria(),
            before=number_at("before", before or None),
            limit=EVENTS_SHOWN,
        )
        events, looked_back_to = list(found.events), found.looked_back_to
        if found.go_on_before is not None:
            older = address(AUDIT, [*asked.query, ("before", str(found.go_on_before))])
    except InvalidRequest as invalid:
        error = invalid.detail
    return console_page(
        "audit.html",
        422 if error else 200,
        session=session,
        here=AUDIT,
        asked=asked,
        is_filtered=bool(asked.query),
        events=events,
        older=older,
        looked_back_to=looked_back_to,
        actions=ACTIONS,
        error=error,
    )


@router.get(f"{AUDIT}/export")
async def export(
    request: Request,
    services: BrokerServices,
    tenant: LineText = "",
    actor: LineText = "",
    action: LineText = "",
    since: LineText = "",
    until: LineText = "",
) -> Response:
    """The events as JSON lines, newest first; a last line says so if there were too many."""
    asked = Asked(tenant.strip(), actor.strip(), action, since, until)
    session = await services.sessions.read(request)
    if session is None:
        return RedirectResponse(sign_in_address(address(AUDIT, asked.query)), 303)
    try:
        criteria = asked.criteria()
    except InvalidRequest as invalid:
        return failure(422, "Nothing was exported", invalid.detail, "Go back and correct it.")
    return StreamingResponse(
        _lines(services, criteria),
        media_type="application/x-ndjson",
        headers={
            "Content-Disposition": 'attachment; filename="audit.jsonl"',
            "Cache-Control": "no-store",
        },
    )


@router.get(SESSIONS)
async def sessions(request: Request, services: BrokerServices) -> Response:
    session = await services.sessions.read(request)
    if session is None:
        return RedirectResponse(sign_in_address(SESSIONS), 303)
    return console_page(
        "sessions.html",
        session=session,
        here=SESSIONS,
        sessions=await services.sessions.every(),
        now=services.clock.now(),
    )


@router.post(f"{SESSIONS}/end")
async def end_session(
    request: Request, services: BrokerServices, which: FormText = "", csrf: FormText = ""
) -> Response:
    """``which``: the hash of the session's token, in hexadecimal."""
    session = await services.sessions.of_form(request, csrf)
    try:
        token_hash = bytes.fromhex(which)
    except ValueError:
        raise InvalidRequest("which: no session's.") from None
    try:
        await services.sessions.end(token_hash, actor_of(request, session.caller))
    except NotFound as error:
        return failure(404, "No such session", error.detail, "Nothing was changed.")
    return RedirectResponse(SESSIONS, 303)


async def _lines(services: Services, criteria: Criteria) -> AsyncIterator[str]:
    before, number = None, 0
    while True:
        found = await search_audit(
            services.database, criteria, before=before, limit=_EXPORTED_AT_ONCE
        )
        for each in found.events:
            event = each.event
            yield (
                json.dumps(
                    {
                        "id": each.id,
                        "at": iso(each.at),
                        "tenant": event.tenant,
                        "actor": event.actor,
                        "action": event.action,
                        "outcome": event.outcome,
                        "request_id": event.request_id,
                        "detail": event.detail,
                    }
                )
                + "\n"
            )
        number += len(found.events)
        before = found.go_on_before
        if before is None:
            return
        if number >= MOST_EXPORTED:
            yield json.dumps({"truncated_before": before}) + "\n"
            return


def _moment(name: str, text: str) -> datetime | None:
    """A time without a zone is UTC, as the form says."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"{name}: a time such as 2026-01-31T08:00.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
