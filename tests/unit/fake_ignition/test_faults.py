"""Faults are queued per endpoint, and compose."""

import asyncio
import json

import pytest
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from ignition_broker.fake_ignition.fault_injection import ConnectionCut, endpoint_of, with_fault
from ignition_broker.fake_ignition.faults import Fault, FaultQueues


class Endpoint:
    """An app that knows whether it was asked."""

    asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        await JSONResponse({"a": 1, "b": 2}, headers={"X-Own": "yes"})(scope, receive, send)


class Connection:
    """What uvicorn's cycle looks like to an app."""

    def __init__(self) -> None:
        self.transport = self
        self.sent: list[Message] = []
        self.ended: str | None = None

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def receive(self) -> Message:
        return {"type": "http.disconnect" if self.ended else "http.request"}

    def abort(self) -> None:
        self.ended = "aborted"

    def close(self) -> None:
        self.ended = "closed"

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])


async def meet(fault: Fault) -> tuple[Endpoint, Connection]:
    endpoint, connection = Endpoint(), Connection()
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await with_fault(endpoint, fault)(scope, connection.receive, connection.send)
    return endpoint, connection


def test_faults_strike_in_the_order_and_number_asked_for():
    queues = FaultQueues()
    first, second = Fault(status=503), Fault(drop="after")
    queues.add("token", first, 2)
    queues.add("token", second, 1)
    assert queues.take("api") is None
    assert queues.pending() == {"token": 3}
    assert [queues.take("token") for _ in range(4)] == [first, first, second, None]
    assert queues.pending() == {}


def test_cleared_faults_never_strike():
    queues = FaultQueues()
    queues.add("api", Fault(status=503), 5)
    queues.clear()
    assert queues.take("api") is None


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/oauth/token", "token"),
        ("/oauth/revoke", "revoke"),
        ("/oauth/authorize", "authorize"),
        ("/v1/me", "api"),
        ("/echo", "api"),
        ("/echo/a/b", "api"),
        ("/echoes", None),
        ("/control/fail", None),
        ("/", None),
    ],
)
def test_each_path_belongs_to_one_endpoint_or_none(path: str, endpoint: str | None):
    assert endpoint_of(path) == endpoint


async def test_a_status_answers_in_place_of_the_endpoint():
    fault = Fault(status=503, body="busy", headers=(("Retry-After", "2"),))
    endpoint, connection = await meet(fault)
    assert endpoint.asked == 0
    assert (connection.sent[0]["status"], connection.body) == (503, b"busy")
    assert connection.headers[b"retry-after"] == b"2"


@pytest.mark.parametrize("status", [500, 502, 504])
async def test_a_request_can_be_carried_out_and_answered_with_something_else(status: int):
    fault = Fault(status=status, body="bad gateway", carry_out=True)
    endpoint, connection = await meet(fault)
    assert endpoint.asked == 1
    assert (connection.sent[0]["status"], connection.body) == (status, b"bad gateway")
    assert b"x-own" not in connection.headers


@pytest.mark.parametrize("status", [204, 205, 304])
async def test_a_status_without_a_body_gets_none(status: int):
    _, connection = await meet(Fault(status=status, body="not sent"))
    assert connection.body == b""


async def test_headers_alone_are_added_to_the_real_answer():
    endpoint, connection = await meet(Fault(headers=(("X-Own", "changed"), ("X-New", "1"))))
    assert endpoint.asked == 1
    assert connection.headers[b"x-own"] == b"changed"
    assert connection.headers[b"x-new"] == b"1"


async def test_a_mutation_changes_adds_and_removes_members():
    _, connection = await meet(Fault(mutate={"a": "odd", "b": None, "c": [1], "d": None}))
    assert json.loads(connection.body) == {"a": "odd", "c": [1]}
    assert connection.headers[b"content-length"] == str(len(connection.body)).encode()


async def test_a_mutation_leaves_an_answer_alone_that_is_no_object():
    _, connection = await meet(Fault(body="no json", mutate={"a": 1}))
    assert connection.body == b"no json"


async def test_a_delay_holds_the_answer_and_not_the_work():
    endpoint, connection = Endpoint(), Connection()
    app = with_fault(endpoint, Fault(delay_seconds=0.05))
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    meeting = asyncio.create_task(app(scope, connection.receive, connection.send))
    await asyncio.sleep(0.01)
    assert (endpoint.asked, connection.sent) == (1, [])
    await meeting
    assert connection.body


async def test_a_dripping_answer_comes_a_byte_at_a_time():
    endpoint, connection = Endpoint(), Connection()
    app = with_fault(endpoint, Fault(drip_seconds=0.005))
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    meeting = asyncio.create_task(app(scope, connection.receive, connection.send))
    await asyncio.sleep(0.02)
    assert endpoint.asked == 1
    assert 0 < len(connection.body) < len(b'{"a":1,"b":2}')
    await meeting
    assert json.loads(connection.body) == {"a": 1, "b": 2}
    assert all(len(message.get("body", b"")) <= 1 for message in connection.sent)


async def test_faults_compose():
    """Carried out, answered with a 502, late, dripping, and cut off midway."""
    fault = Fault(
        status=502,
        body="bad gateway",
        carry_out=True,
        delay_seconds=0.01,
        drip_seconds=0.001,
        drop="during",
        headers=(("X-New", "1"),),
    )
    endpoint, connection = await meet(fault)
    assert (endpoint.asked, connection.ended) == (1, "closed")
    assert connection.sent[0]["status"] == 502
    assert connection.headers[b"x-new"] == b"1"
    assert connection.body == b"bad g"


@pytest.mark.parametrize(
    ("fault", "asked", "ended"),
    [
        (Fault(drop="before"), 0, "aborted"),
        (Fault(drop="before", delay_seconds=0.01), 0, "aborted"),
        (Fault(drop="after"), 1, "aborted"),
        (Fault(drop="after", delay_seconds=0.01, headers=(("A", "b"),)), 1, "aborted"),
    ],
)
async def test_a_dropped_answer_sends_no_byte(fault: Fault, asked: int, ended: str):
    endpoint, connection = await meet(fault)
    assert (endpoint.asked, connection.sent, connection.ended) == (asked, [], ended)


async def test_an_answer_dropped_midway_loses_its_second_half():
    endpoint, connection = await meet(Fault(drop="during"))
    assert (endpoint.asked, connection.ended) == (1, "closed")
    assert 0 < len(connection.body) < int(connection.headers[b"content-length"])


async def test_where_no_transport_shows_a_cut_is_an_exception():
    async def nothing(message: Message) -> None: ...

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with pytest.raises(ConnectionCut):
        await with_fault(Endpoint(), Fault(drop="after"))(scope, Connection().receive, nothing)


def test_a_fault_knows_whether_work_was_done_for_nothing():
    assert Fault(drop="after").drops_answer
    assert Fault(drop="during").drops_answer
    assert not Fault(drop="before").drops_answer
    assert Fault(status=502, carry_out=True).drops_answer
    assert not Fault(status=502).drops_answer
    assert not Fault(carry_out=True).drops_answer
    assert Fault(drip_seconds=1).delays_answer
    assert Fault(delay_seconds=1).delays_answer
    assert not Fault(drop="after").delays_answer
    assert Fault(body="").replaces_answer
    assert not Fault(headers=(("A", "b"),)).replaces_answer
