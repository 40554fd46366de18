"""/control: how a test makes trouble and sees what came of it. No authentication: loopback only."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ignition_broker.fake_ignition.errors import MalformedRequest
from ignition_broker.fake_ignition.events import AccessTokenExpired
from ignition_broker.fake_ignition.faults import Drop, Endpoint, Fault
from ignition_broker.fake_ignition.issuing import open_grant, revoke_grant
from ignition_broker.fake_ignition.ledger import Grant, RefreshToken
from ignition_broker.fake_ignition.parameters import read_json_object
from ignition_broker.fake_ignition.provider import Counters, Provider

HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
HEADER_VALUE = re.compile(r"[\x20-\x7e\x80-\xff\t]*")
FRAMING_HEADERS = frozenset({"content-length", "transfer-encoding"})


def sendable_headers(headers: dict[str, str]) -> dict[str, str]:
    """Refuse headers that the server could not send, or that would break its framing."""
    for name, value in headers.items():
        if not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
            raise ValueError("a header is malformed")
        if name.lower() in FRAMING_HEADERS:
            raise ValueError(f"{name} is the server's to set")
    return headers


def sendable_header_value(value: str) -> str:
    """Refuse what could not be sent as a header's value."""
    if not HEADER_VALUE.fullmatch(value):
        raise ValueError("not a header value")
    return value


Seconds = Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)]
Lifetime = Annotated[int, Field(ge=0, le=10**9)]


class Order(BaseModel):
    """A control request; what it does not know, it refuses."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Selection(Order):
    """Which grants or access tokens are meant; nothing named means all."""

    access_token_sha256: str | None = None
    grant: str | None = None


class Failure(Order):
    """A fault, where and how often."""

    endpoint: Endpoint
    count: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    carry_out: bool = False
    delay_seconds: Seconds = 0.0
    drip_seconds: Seconds = 0.0
    drop: Drop | None = None
    headers: Annotated[dict[str, str], AfterValidator(sendable_headers)] = {}
    body: str | None = None
    content_type: Annotated[str, AfterValidator(sendable_header_value)] | None = None
    mutate: dict[str, JsonValue] | None = None


class Changes(Order):
    """Options that can change while the fake runs."""

    access_token_lifetime_seconds: Lifetime | None = None
    code_lifetime_seconds: Lifetime | None = None
    refresh_token_lifetime_seconds: Lifetime | None = None
    reuse_grace_seconds: Lifetime | None = None
    requests_per_hour: Lifetime | None = None
    rotate_refresh_tokens: bool | None = None


class Seeding(Order):
    """Grants wanted without a browser."""

    count: Annotated[int, Field(ge=1, le=100_000)] = 1
    scope: Annotated[str, Field(min_length=1)] | None = None
    practice: Annotated[str, Field(pattern=r"^[a-z0-9_.-]{1,64}$")] | None = None


class Turn(Order):
    """Time that is to pass at once."""

    seconds: Annotated[float, Field(ge=0, le=10**9, allow_inf_nan=False)]


AnyOrder = TypeVar("AnyOrder", bound=Order)


@dataclass(frozen=True)
class Control:
    """The strings that a test can pull."""

    provider: Provider

    def routes(self) -> list[Route]:
        """List the endpoints."""
        return [
            Route("/control/expire", self.expire, methods=["POST"]),
            Route("/control/revoke", self.revoke, methods=["POST"]),
            Route("/control/fail", self.fail, methods=["POST"]),
            Route("/control/options", self.change_options, methods=["POST"]),
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
        """Let time pass, for tokens and rate limits."""
        self.provider.turn_clock((await read_order(request, Turn)).seconds)
        return JSONResponse({"now": self.provider.clock()})

    async def reset(self, _request: Request) -> Response:
        """Begin counting anew and forget faults that have not struck; grants stay."""
        self.provider.counters = Counters()
        self.provider.faults.clear()
        return JSONResponse({})

    async def counters(self, _request: Request) -> Response:
        """Tell what the fake saw."""
        return JSONResponse(asdict(self.provider.counters))

    async def ledger(self, request: Request) -> Response:
        """Tell the history of every grant, or of those that the query names."""
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
    """Tell how often a refresh token was shown, and which of the answers a fault took away."""
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


async def read_order(request: Request, order: type[AnyOrder]) -> AnyOrder:
    """Read a control request from its body."""
    return parse_order(await read_json_object(request), order)


def parse_order(members: dict[str, Any], order: type[AnyOrder]) -> AnyOrder:
    """Check a control request.

    Raises
    ------
    MalformedRequest
        A member is unknown or of the wrong kind.
    """
    try:
        return order.model_validate(members)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise MalformedRequest(f"{where}: {first['msg']}") from error
