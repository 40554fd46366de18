"""The API under /v1: a small practice with proposals and clients, behind a Bearer token."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ignition_broker.fake_ignition.errors import MalformedRequest
from ignition_broker.fake_ignition.paging import integer_parameter, link_header, page_of
from ignition_broker.fake_ignition.parameters import read_json_object
from ignition_broker.fake_ignition.practices import PRACTICES
from ignition_broker.fake_ignition.provider import Provider

PROPOSALS = tuple(
    {
        "id": f"prop_{number:04}",
        "title": f"Engagement {number} for {client}",
        "client": client,
        "status": ("draft", "sent", "accepted", "lost")[number % 4],
        "total": {"amount": 900 + 137 * number, "currency": "AUD"},
    }
    for number, client in ((n, ("Contoso", "Fabrikam", "Litware")[n % 3]) for n in range(1, 58))
)
MAX_CLIENTS = 1000
MAX_STREAMED_BYTES = 16 * 1024**3
CHUNK = bytes(range(256)) * 256


@dataclass(frozen=True)
class RequiresBearer:
    """Lets requests with a live access token through to an app. RFC 6750 section 2.1."""

    app: ASGIApp
    provider: Provider
    unauthorized: Response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        shown = request.headers.getlist("authorization")
        scheme, _, token = shown[0].partition(" ") if len(shown) == 1 else ("", "", "")
        now = self.provider.clock()
        grant = self.provider.ledger.live_grant(token.strip(), now)
        if scheme.lower() != "bearer" or grant is None:
            self.provider.counters.api_unauthorized += 1
            await self.unauthorized(scope, receive, send)
            return
        scope.setdefault("state", {})["grant"] = grant
        await self.app(scope, receive, send)


@dataclass(frozen=True)
class Api:
    """What Ignition's API offers, as far as the tests need it."""

    clients: deque[dict[str, Any]] = field(
        default_factory=lambda: deque(
            [
                {"id": "client_1", "name": "Contoso", "email": "hello@contoso.example"},
                {"id": "client_2", "name": "Fabrikam", "email": "hello@fabrikam.example"},
            ],
            maxlen=MAX_CLIENTS,
        )
    )

    def routes(self) -> list[Route]:
        """List the endpoints."""
        return [
            Route("/v1/me", self.me),
            Route("/v1/proposals", self.list_proposals),
            Route("/v1/clients", self.list_clients),
            Route("/v1/clients", self.add_client, methods=["POST"]),
            Route("/v1/stream", self.stream_events),
            Route("/v1/bytes", self.stream_bytes),
        ]

    async def me(self, request: Request) -> Response:
        """Say whom the token stands for."""
        grant = request.state.grant
        return JSONResponse(
            {
                "id": "user_ada",
                "name": "Ada Byron",
                "practice": PRACTICES.get(grant.practice, grant.practice),
                "practice_id": grant.practice,
                "grant": grant.id,
                "scope": grant.scope,
            }
        )

    async def list_proposals(self, request: Request) -> Response:
        """Return a page of proposals, its neighbours named by a Link header. RFC 8288."""
        number = integer_parameter(request, "page", default=1, lowest=1, highest=10**6)
        size = integer_parameter(request, "per_page", default=25, lowest=1, highest=100)
        found = page_of(PROPOSALS, number, size)
        links = link_header(request, number, size, len(PROPOSALS))
        return JSONResponse(
            {"proposals": found, "page": number, "per_page": size, "total": len(PROPOSALS)},
            headers={"Link": links} if links else None,
        )

    async def list_clients(self, _request: Request) -> Response:
        """Return every client."""
        return JSONResponse({"clients": list(self.clients), "total": len(self.clients)})

    async def add_client(self, request: Request) -> Response:
        """Add a client; the oldest goes when there are too many."""
        wanted = await read_json_object(request)
        name, email = wanted.get("name"), wanted.get("email")
        if not isinstance(name, str) or not name.strip():
            raise MalformedRequest("A client needs a name.", status=422)
        if email is not None and not isinstance(email, str):
            raise MalformedRequest("email must be a string.", status=422)
        number = int(self.clients[-1]["id"].removeprefix("client_")) + 1
        client = {"id": f"client_{number}", "name": name, "email": email}
        self.clients.append(client)
        return JSONResponse(client, 201, headers={"Location": f"/v1/clients/client_{number}"})

    async def stream_events(self, request: Request) -> Response:
        """Send numbered events, one an interval, as Server-Sent Events."""
        count = integer_parameter(request, "count", default=5, lowest=0, highest=10**6)
        interval = integer_parameter(request, "interval_ms", default=200, lowest=0, highest=60_000)

        async def events() -> AsyncIterator[str]:
            for number in range(count):
                if number:
                    await asyncio.sleep(interval / 1000)
                yield f"id: {number}\nevent: tick\ndata: {json.dumps({'number': number})}\n\n"

        return StreamingResponse(
            events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    async def stream_bytes(self, request: Request) -> Response:
        """Send that many bytes, 0 to 255 over and over."""
        size = integer_parameter(
            request, "size", default=1024, lowest=0, highest=MAX_STREAMED_BYTES
        )

        async def chunks() -> AsyncIterator[bytes]:
            for offset in range(0, size, len(CHUNK)):
                yield CHUNK[: size - offset]

        return StreamingResponse(
            chunks(),
            media_type="application/octet-stream",
            headers={"Content-Length": str(size)},
        )


NOT_ACCEPTED = "The access token is not accepted."
CHALLENGE = {
    "WWW-Authenticate": f'Bearer error="invalid_token", error_description="{NOT_ACCEPTED}"'
}
UNAUTHORIZED = JSONResponse(
    {"error": "invalid_token", "error_description": NOT_ACCEPTED}, 401, headers=CHALLENGE
)
"""Refuses a request without a live token. RFC 6750 section 3.1."""
