"""What tests may order at /control, checked."""

import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError
from starlette.requests import Request

from ignition_broker.fake_ignition.errors import MalformedRequest
from ignition_broker.fake_ignition.faults import Drop, Endpoint
from ignition_broker.fake_ignition.parameters import read_json_object

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
    """A control request; unknown members are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Selection(Order):
    """Which grants or access tokens an order is for; without a member, all of them."""

    access_token_sha256: str | None = None
    grant: str | None = None


class Failure(Order):
    """A fault: at which endpoint, and how often."""

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
    requests_window_seconds: Annotated[int, Field(ge=1, le=10**6)] | None = None
    rotate_refresh_tokens: bool | None = None


class Registration(Order):
    """The client's secrets from now on; the earlier ones are accepted no longer."""

    client_secrets: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class Seeding(Order):
    """An order for grants without a browser."""

    count: Annotated[int, Field(ge=1, le=100_000)] = 1
    scope: Annotated[str, Field(min_length=1)] | None = None
    practice: Annotated[str, Field(pattern=r"^[a-z0-9_.-]{1,64}$")] | None = None


class Turn(Order):
    """An order to move the clock forward."""

    seconds: Annotated[float, Field(ge=0, le=10**9, allow_inf_nan=False)]


AnyOrder = TypeVar("AnyOrder", bound=Order)


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
