"""/control: tests inject faults here and read what happened. No authentication: loopback only."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ignition_broker.fake_ignition.control_orders import (
    Changes,
    Failure,
    Registration,
    Seeding,
    Selection,
    Turn,
    parse_order,
    read_order,
)
from ignition_broker.fake_ignition.events import AccessTokenExpired
from ignition_broker.fake_ignition.faults import Fault
from ignition_broker.fake_ignition.issuing import open_grant, revoke_grant
from ignition_broker.fake_ignition.ledger import Grant, RefreshToken
from ignition_broker.fake_ignition.provider import Counters, Provider


@dataclass(frozen=True)
class Control:
    """The endpoints for tests: faults, options, clock, seeded grants, counters and ledger."""

    provider: Provider

    def routes(self) -> list[Route]:
        """List the endpoints."""
        return [
            Route("/control/expire", self.expire, methods=["POST"]),
            Route("/control/revoke", self.revoke, methods=["POST"]),
            Route("/control/fail", self.fail, methods=["POST"]),
            Route("/control/options", self.change_options, methods=["POST"]),
            Route("/control/client", self.change_client, methods=["POST"]),
            Route("/control/grants", self.seed_grants, methods=["POST"]),
            Route("/control/clock", self.turn_clock, methods=["POST"]),
            Route("/control/reset", self.reset, methods=["POST"]),
            Route("/control/counters", self.counters),
            Route("/control/ledger", self.ledger),
        ]

    async def expire(self, request: Request) -> Response:
        """Stop accepting access tokens, from now on."""
        selection = await read_order(request, Selection)
        now = self.provider.clock()
        expired = [
            token.sha256
            for token in self.provider.ledger.live_access_tokens(now)
            if selection.access_token_sha256 in (None, token.sha256)
            and selection.grant in (None, token.grant)
        ]
        for sha256 in expired:
            self.provider.ledger.record(AccessTokenExpired(now, sha256))
        return JSONResponse({"expired": len(expired)})

    async def revoke(self, request: Request) -> Response:
        """End grants, as an admin at Ignition might."""
        selection = await read_order(request, Selection)
        revoked = [
            grant.id
            for grant in self._selected(selection)
            if revoke_grant(self.provider, grant.id, "revoked_by_control")
        ]
        return JSONResponse({"revoked": len(revoked)})

    async def fail(self, request: Request) -> Response:
        """Queue a fault."""
        failure = await read_order(request, Failure)
        fault = Fault(
            status=failure.status,
            body=failure.body,
            content_type=failure.content_type or Fault.content_type,
            headers=tuple(failure.headers.items()),
            carry_out=failure.carry_out,
            delay_seconds=failure.delay_seconds,
            drip_seconds=failure.drip_seconds,
            drop=failure.drop,
            mutate=failure.mutate,
        )
        self.provider.faults.add(failure.endpoint, fault, failure.count)
        return JSONResponse({"pending": self.provider.faults.pending()})

    async def change_options(self, request: Request) -> Response:
        """Change lifetimes and policy for what is issued from now on."""
        changes = (await read_order(request, Changes)).model_dump(exclude_none=True)
        self.provider.options = replace(self.provider.options, **changes)
        return JSONResponse({name: getattr(self.provider.options, name) for name in changes})

    async def change_client(self, request: Request) -> Response:
        """Change the client's secrets; several are accepted side by side."""
        first, *others = (await read_order(request, Registration)).client_secrets
        self.provider.options = replace(
            self.provider.options, client_secret=first, other_client_secrets=tuple(others)
        )
        return JSONResponse({"client_secrets": 1 + len(others)})

    async def seed_grants(self, request: Request) -> Response:
        """Open grants as if a user had approved each, for load and chaos tests."""
        seeding = await read_order(request, Seeding)
        scope = seeding.scope or self.provider.options.default_scope
        first = len(self.provider.ledger.grants) + 1
        issued = (
            open_grant(
                self.provider,
                scope=scope,
                # Each a practice of its own, unless the order names one.
                practice=seeding.practice or f"seeded_{number}",
            )
            for number in range(first, first + seeding.count)
        )
        return JSONResponse({"grants": [asdict(one) for one in issued]}, status_code=201)

    async def turn_clock(self, request: Request) -> Response:
        """Move the clock forward, for tokens and rate limits."""
        self.provider.turn_clock((await read_order(request, Turn)).seconds)
        return JSONResponse({"now": self.provider.clock()})

    async def reset(self, _request: Request) -> Response:
        """Set the counters to zero and drop queued faults; grants stay."""
        self.provider.counters = Counters()
        self.provider.faults.clear()
        return JSONResponse({})

    async def counters(self, _request: Request) -> Response:
        """Return the counters."""
        return JSONResponse(asdict(self.provider.counters))

    async def ledger(self, request: Request) -> Response:
        """Return the history of every grant, or of those that the query names."""
        selection = parse_order(dict(request.query_params), Selection)
        now = self.provider.clock()
        return JSONResponse(
            {"grants": [self._history(grant, now) for grant in self._selected(selection)]}
        )

    def _selected(self, selection: Selection) -> Iterable[Grant]:
        wanted = selection.grant
        if selection.access_token_sha256 is not None:
            token = self.provider.ledger.find_access_token(selection.access_token_sha256)
            if token is None or wanted not in (None, token.grant):
                return []
            wanted = token.grant
        grants = self.provider.ledger.grants
        if wanted is None:
            return list(grants.values())
        return [grants[wanted]] if wanted in grants else []

    def _history(self, grant: Grant, now: float) -> dict[str, Any]:
        return {
            "id": grant.id,
            "alive": grant.alive,
            "scope": grant.scope,
            "practice": grant.practice,
            "opened_at": grant.opened_at,
            "revoked_at": grant.revoked_at,
            "revoked_reason": grant.revoked_reason,
            "refreshes": grant.refreshes,
            "access_token_sha256": grant.access_tokens[-1].sha256,
            "access_tokens_issued": len(grant.access_tokens),
            "access_tokens_live": sum(
                self.provider.ledger.is_live(token, now) for token in grant.access_tokens
            ),
            "refresh_tokens": [presentations(token) for token in grant.refresh_tokens],
        }


def presentations(token: RefreshToken) -> dict[str, Any]:
    """Return how often a refresh token was presented, and which answers a fault took away."""
    return {
        "sha256": token.sha256,
        "spent_at": token.spent_at,
        "times_presented": len(token.presented_at),
        "presented_at": token.presented_at,
        "presented_host": token.presented_host,
        "answer_dropped": bool(token.answer_dropped_at),
        "answer_dropped_at": token.answer_dropped_at,
        "answer_delayed": bool(token.answer_delayed_at),
        "answer_delayed_at": token.answer_delayed_at,
        "late_answer_ended_at": token.late_answer_ended_at,
    }
