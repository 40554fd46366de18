"""The proxy where calls are counted: what each request takes, and what the caller is told."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.broker.allowance.test_gate import Stand as GateStand
from tests.unit.proxy.test_forward import Answer, Api
from tests.unit.proxy.test_forward import Stand as ForwarderStand
from tests.unit.values import make_token

from ignition_broker.broker.errors import AllowanceSpent, InvalidRequest, NotConnected
from ignition_broker.model import Caller
from ignition_broker.outbound.errors import NoConnectionFree, TimedOut, Unreachable
from ignition_broker.proxy.forward import Forwarder
from ignition_broker.proxy.forwarded_call import ApiRequest, ForwardedCall
from ignition_broker.proxy.headers import ApiLinks, response_headers
from ignition_broker.proxy.metered import MeteredForwarder, admit_page

TOKEN = make_token(version=1)
KEY = Caller("key", frozenset(), ("acme",))


class Sends(Forwarder):
    """Sends so many requests to the API for one call, as the `Forwarder` sends each."""

    def __init__(self, api: Api) -> None:
        self._upstream = api
        self.requests = 1
        self.answers: list[Answer] = []
        self.told: list[tuple[int, int] | None] = []
        self.error: Exception | None = None
        self.received: list[dict] = []
        self.before_each = None

    async def forward(self, _scope, receive, _send, call):
        if self.error is not None:
            raise self.error
        self.received.append(await receive())
        for number in range(self.requests):
            if number and self.before_each is not None:
                await self.before_each(call)
            request = ApiRequest("GET", b"/x", [], None, has_body=False)
            self.answers.append(await self._sent(request, TOKEN, call))
            self.told.append(request.left)


class Stand:
    def __init__(self, *answers: Answer | Exception, calls: int = 100) -> None:
        self.gates = GateStand(calls=calls)
        self.gate = self.gates.gate
        self.api = Api(*answers)
        self.sends = Sends(self.api)
        self.forwarder = MeteredForwarder(self.sends, self.gate)
        self.confirmed = 0
        self.messages = [{"type": "http.request", "body": b"", "more_body": False}]
        self.is_gone = asyncio.Event()

    async def confirm(self):
        self.confirmed += 1

    async def receive(self):
        if self.messages:
            return self.messages.pop(0)
        await self.is_gone.wait()
        return {"type": "http.disconnect"}

    async def call(self, *headers):
        if not self.messages:
            self.messages.append({"type": "http.request", "body": b"", "more_body": False})
        scope = {"type": "http", "method": "GET", "headers": list(headers), "state": {}}
        call = ForwardedCall("acme", b"/x", b"/proxy/acme", "id-1", "key", self.confirm, KEY)
        await self.forwarder.forward(scope, self.receive, None, call)

    async def used(self) -> int:
        return (await self.gate.use("acme")).used


async def test_an_answer_tells_what_the_key_has_left_and_until_when():
    stand = Stand(Answer(), Answer())
    await stand.call()
    await stand.call()
    assert stand.sends.told == [(99, 60), (98, 60)]


def test_what_the_api_sends_by_those_names_is_not_passed_on():
    sent = [
        (b"broker-allowance-remaining", b"7"),
        (b"broker-allowance-reset", b"1"),
        (b"x-a", b"1"),
    ]
    links = ApiLinks("https://api.example.com")
    assert response_headers(sent, links, b"/proxy/acme") == [(b"x-a", b"1")]


async def test_every_request_to_the_api_takes_a_call():
    stand = Stand(Answer(status=401), Answer(), Answer())
    stand.sends.requests = 3
    await stand.call()
    assert await stand.used() == 3


async def test_a_replay_finds_no_call_left():
    stand = Stand(Answer(status=401), calls=1)
    stand.sends.requests = 2
    with pytest.raises(AllowanceSpent):
        await stand.call()
    assert len(stand.api.sent) == 1


async def test_over_the_allowance_nothing_is_done_for_the_caller():
    stand = Stand(Answer(), calls=1)
    await stand.call()
    with pytest.raises(AllowanceSpent):
        await stand.call()
    assert len(stand.sends.received) == 1


@pytest.mark.parametrize("error", [NotConnected("acme"), RuntimeError("odd")])
async def test_a_call_that_failed_before_it_was_sent_costs_nothing(error):
    stand = Stand()
    stand.sends.error = error
    for _ in range(200):
        with pytest.raises(type(error)):
            await stand.call()
    assert await stand.used() == 0


@pytest.mark.parametrize(
    ("error", "used"),
    [
        (NoConnectionFree("busy"), 0),
        (Unreachable("refused", was_sent=False), 0),
        (Unreachable("broke"), 1),
        (TimedOut("late"), 1),
        (RuntimeError("odd"), 1),
    ],
)
async def test_what_may_have_been_sent_counts_and_what_was_not_does_not(error, used):
    # What was not sent at all is sent once more.
    stand = Stand(error, error)
    with pytest.raises(type(error)):
        await stand.call()
    assert await stand.used() == used


@pytest.mark.parametrize("value", [b"", b"-1", b"1.5", b"ten", b"3601", b"99999"])
async def test_a_malformed_wait_is_named(value):
    stand = Stand(Answer())
    with pytest.raises(InvalidRequest, match="Broker-Wait"):
        await stand.call((b"broker-wait", value))
    assert not stand.api.sent


async def test_a_caller_that_waited_is_checked_again():
    stand = Stand(Answer(), Answer(), calls=1)
    await stand.call()
    stand.messages.append({"type": "http.request", "body": b"later", "more_body": False})
    await stand.call((b"broker-wait", b"70"))
    assert len(stand.api.sent) == 2
    assert stand.confirmed == 1
    assert stand.sends.received[-1]["body"] == b"later", "what it sent meanwhile is not lost"


async def test_a_caller_that_leaves_the_queue_makes_no_call():
    stand = Stand(Answer(), calls=1)
    await stand.call()
    stand.gates.clock.sleep = lambda _seconds: asyncio.Event().wait()
    stand.is_gone.set()
    await stand.call((b"broker-wait", b"3000"))
    assert len(stand.sends.received) == 1


async def test_a_further_page_is_taken_ahead_and_counts_once():
    stand = Stand(Answer(), Answer(), Answer())
    stand.sends.requests = 3
    stand.sends.before_each = admit_page
    await stand.call()
    assert await stand.used() == 3


async def test_a_page_beyond_the_allowance_is_refused():
    stand = Stand(Answer(), Answer(), calls=2)
    stand.sends.requests = 3
    stand.sends.before_each = admit_page
    with pytest.raises(AllowanceSpent):
        await stand.call()
    assert len(stand.api.sent) == 2


async def test_a_tenant_whose_calls_are_not_counted_is_passed_through():
    stand = Stand(Answer())
    stand.gate._allowance_of = lambda _tenant: None
    await stand.call()
    assert stand.sends.told == [None]


def metered_forwarder(*answers: Answer, calls: int = 100) -> tuple[ForwarderStand, GateStand]:
    """The real forwarder, with a meter around it."""
    gates = GateStand(calls=calls)
    stand = ForwarderStand(*answers, clock=gates.clock)
    stand.forwarder = MeteredForwarder(stand.forwarder, gates.gate)
    return stand, gates


async def test_the_forwarder_takes_and_tells_with_and_without_a_wish_to_wait():
    stand, _gates = metered_forwarder(Answer(), Answer(), Answer())
    await stand.call()
    await stand.call()
    call = await stand.call(headers=[(b"broker-wait", b"7")])
    starts = [message for message in stand.messages if message["type"] == "http.response.start"]
    told = [dict(start["headers"]) for start in starts]
    assert [each[b"broker-allowance-remaining"] for each in told] == [b"99", b"98", b"97"]
    assert [each[b"broker-allowance-reset"] for each in told] == [b"60"] * 3
    assert call.waiting.wait_seconds == 7
    assert stand.confirmed == 1, "a caller that may have waited is checked again"


@pytest.mark.parametrize("values", [[b"ten"], [b"1", b"2"]])
async def test_a_malformed_wait_is_named_where_there_is_room_too(values):
    stand, gates = metered_forwarder(Answer())
    await stand.call()
    with pytest.raises(InvalidRequest, match="Broker-Wait"):
        await stand.call(headers=[(b"broker-wait", value) for value in values])
    assert len(stand.api.sent) == 1
    assert (await gates.gate.use("acme")).used == 1


async def test_a_window_that_turned_since_the_caller_was_let_in_is_the_one_that_is_charged():
    stand, gates = metered_forwarder(Answer(), Answer(), Answer())
    await stand.call()
    await stand.call()

    async def turns(*_arguments, **_more):
        gates.clock.at += 62
        return TOKEN

    stand.tokens.is_held = False
    stand.tokens.issue = turns
    await stand.call()
    use = await gates.gate.use("acme")
    assert (use.used, use.remaining) == (1, 99)
