"""How the OAuth endpoints are asked: over real sockets, against servers that answer oddly, go away,
or let nobody in."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import threading
import time
import zlib

import pytest
from tests.service.certificates import Authority
from tests.service.wire import OK, RawUpstream

from ignition_broker.broker.grants import ignition_client as endpoints_module
from ignition_broker.broker.grants.ignition_client import LARGEST_ANSWER_BYTES, IgnitionClient
from ignition_broker.oauth.requests import OAuthRequest
from ignition_broker.outbound.errors import (
    ExchangeError,
    NoConnectionFree,
    RequestWithdrawn,
    Unreachable,
)
from ignition_broker.outbound.exchange import Exchange
from ignition_broker.outbound.http1_pool import Limits, Pool

BODY = b"grant_type=refresh_token&refresh_token=abc"
TOKEN = b'{"access_token": "a"}'
# Without the time, which would change the tests' names every second.
GZIPPED = gzip.compress(TOKEN, mtime=0)


@pytest.fixture
async def endpoints():
    client = IgnitionClient(timeout_seconds=3)
    yield client
    await client.aclose()


@pytest.fixture
async def pool(upstream):
    """Of one connection at most."""
    limits = Limits(
        connect_timeout_seconds=0.4,
        timeout_seconds=5,
        idle_timeout_seconds=5,
        connections=1,
        idle_per_tenant=1,
    )
    client = Pool(f"http://127.0.0.1:{upstream.port}", limits)
    yield client
    await client.aclose()


def request(url: str) -> OAuthRequest:
    form = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    return OAuthRequest(url, form, BODY)


def at(upstream: RawUpstream, path: str = "/token") -> OAuthRequest:
    return request(f"http://127.0.0.1:{upstream.port}{path}")


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, *headers, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def test_one_post_with_its_length_its_headers_and_nothing_compressed_asked_for(
    endpoints, upstream
):
    upstream.answers(answer(TOKEN, b"X-Request-Id: 7"))
    received = await endpoints.post(at(upstream, "/oauth/t%C3%A4ken+a?tenant=x y"))
    assert (received.status, received.body) == (200, TOKEN)
    assert received.headers["x-request-id"] == "7"
    seen = upstream.last
    assert seen.head.startswith(b"POST /oauth/t%C3%A4ken+a?tenant=x%20y HTTP/1.1\r\n")
    assert seen.body == BODY
    assert seen.values(b"host") == [b"127.0.0.1:%d" % upstream.port]
    assert seen.values(b"content-length") == [b"%d" % len(BODY)]
    assert seen.values(b"content-type") == [b"application/x-www-form-urlencoded"]
    assert seen.values(b"accept-encoding") == [b"identity"]
    assert seen.values(b"user-agent")[0].startswith(b"ignition-broker/")
    assert BODY.decode() not in repr(received)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", GZIPPED),
        (b"X-Gzip", GZIPPED),
        (b"deflate", zlib.compress(TOKEN)),
        (b"identity", TOKEN),
        (b"deflate", zlib.compress(TOKEN)[2:-4]),
        (b"gzip, identity", GZIPPED),
        (b"gzip, gzip", gzip.compress(GZIPPED, mtime=0)),
        (b"", GZIPPED),
    ],
)
async def test_an_answer_that_was_compressed_unasked_is_read(endpoints, upstream, coding, body):
    upstream.answers(answer(body, b"Content-Encoding: " + coding))
    received = await endpoints.post(at(upstream))
    assert (received.body, received.flaw) == (TOKEN, None)


async def test_an_answer_without_a_length_ends_with_its_connection(endpoints, upstream):
    async def script(exchange) -> None:
        await exchange.read_body()
        await exchange.send(b"HTTP/1.0 200 OK\r\n\r\n" + TOKEN)
        exchange.writer.close()

    upstream.plays(script)
    assert (await endpoints.post(at(upstream))).body == TOKEN


@pytest.mark.parametrize(
    ("raw", "why", "left"),
    [
        (answer(b"x" * (LARGEST_ANSWER_BYTES + 1)), "larger than 1 MiB", b"x"),
        (
            answer(
                gzip.compress(b"x" * (LARGEST_ANSWER_BYTES + 1), mtime=0), b"Content-Encoding: gzip"
            ),
            "too large",
            b"x",
        ),
        (answer(GZIPPED[:-9], b"Content-Encoding: gzip"), "cut off", TOKEN),
        (answer(GZIPPED[:-8] + bytes(8), b"Content-Encoding: gzip"), "damaged", TOKEN),
        (answer(b"", b"Content-Encoding: gzip"), "not the gzip that it says it is", b""),
        (answer(TOKEN, b"Content-Encoding: gzip"), "not the gzip that it says it is", TOKEN),
        (answer(TOKEN, b"Content-Encoding: deflate"), "not the deflate that it says", TOKEN),
        (answer(TOKEN, b"Content-Encoding: br"), "'br' was not asked for", TOKEN),
        (answer(TOKEN, b"Content-Encoding: gzip, br"), "'br' was not asked for", TOKEN),
    ],
)
async def test_an_answer_that_cannot_be_decoded_says_why_and_keeps_what_came(
    endpoints, upstream, raw, why, left
):
    upstream.answers(raw)
    received = await endpoints.post(at(upstream))
    assert why in received.flaw
    assert received.status == 200
    assert received.body.startswith(left)
    assert len(received.body) <= LARGEST_ANSWER_BYTES
    upstream.answers(answer(TOKEN))
    assert (await endpoints.post(at(upstream))).body == TOKEN


async def test_a_redirect_is_an_answer_like_another(endpoints, upstream):
    upstream.answers(answer(b"", b"Location: /elsewhere", status=b"302 Found"))
    assert (await endpoints.post(at(upstream))).status == 302
    assert len(upstream.exchanges) == 1


async def test_no_request_uses_a_connection_on_which_another_was_answered(endpoints, upstream):
    """A gateway that answers twice, the second time late, has two tokens on one connection."""

    async def twice(exchange) -> None:
        await exchange.read_body()
        await exchange.send(answer(b"%d" % len(upstream.exchanges)))
        await asyncio.sleep(0.05)
        await exchange.send(answer(b"%d" % len(upstream.exchanges)))

    upstream.plays(twice)
    for number in range(1, 6):
        assert (await endpoints.post(at(upstream))).body == b"%d" % number
    assert len({exchange.connection for exchange in upstream.exchanges}) == 5
    assert {exchange.values(b"connection")[0] for exchange in upstream.exchanges} == {b"close"}


async def test_a_request_that_broke_off_may_have_arrived_and_is_not_repeated(endpoints, upstream):
    upstream.answers(answer(TOKEN))
    await endpoints.post(at(upstream))

    async def cut(exchange) -> None:
        await exchange.read_body()
        raise ConnectionError

    upstream.plays(cut)
    with pytest.raises(Unreachable, match=r"Ignition's connection brought no answer") as lost:
        await endpoints.post(at(upstream))
    assert lost.value.was_sent
    assert len(upstream.exchanges) == 1


async def test_the_received_part_of_a_broken_answer_is_kept(endpoints, upstream):
    async def cut(exchange) -> None:
        await exchange.read_body()
        await exchange.send(answer(TOKEN)[:-1])
        raise ConnectionError

    upstream.plays(cut)
    received = await endpoints.post(at(upstream))
    assert (received.status, received.body) == (200, TOKEN[:-1])
    assert "Ignition's answer broke off" in received.broke_off.detail
    assert received.broke_off.was_sent


@pytest.mark.parametrize("cut_at", [0, 17, -9], ids=["head", "amid the head", "amid the body"])
async def test_an_answer_is_waited_for_however_slow_it_is(upstream, cut_at):
    """Neither the silence before it nor the one amid it ends the request: its sender does that."""
    raw = answer(TOKEN)

    async def slow(exchange) -> None:
        await exchange.read_body()
        await exchange.send(raw[:cut_at])
        await asyncio.sleep(1.0)
        for byte in raw[cut_at:]:
            await exchange.send(bytes([byte]))
            await asyncio.sleep(0.005)

    upstream.plays(slow)
    client = IgnitionClient(timeout_seconds=0.3)
    assert (await client.post(at(upstream))).body == TOKEN
    await client.aclose()


async def test_a_request_whose_time_is_over_is_not_sent_once_connected(endpoints, upstream):
    upstream.answers(answer(TOKEN))
    with pytest.raises(RequestWithdrawn):
        await endpoints.post(at(upstream), may_send=lambda: False)
    assert upstream.exchanges == []
    assert (await endpoints.post(at(upstream), may_send=lambda: True)).body == TOKEN


async def test_late_answers_keep_nobody_from_asking(upstream, monkeypatch):
    """They make room, up to a bound, and are read when they come."""
    monkeypatch.setattr(endpoints_module, "CONNECTIONS", 1)
    monkeypatch.setattr(endpoints_module, "LATE_CONNECTIONS", 2)
    client = IgnitionClient(timeout_seconds=0.3)
    may_answer = threading.Event()

    async def slow(exchange) -> None:
        await exchange.read_body()
        await asyncio.to_thread(may_answer.wait, 10)
        await exchange.send(answer(TOKEN))

    upstream.plays(slow)
    late = []
    for count in (1, 2):
        late.append(asyncio.create_task(client.post(at(upstream))))
        await asyncio.sleep(0.4)
        assert client.late_requests == count
    late.append(asyncio.create_task(client.post(at(upstream))))
    await asyncio.sleep(0.4)
    assert client.late_requests == 2
    with pytest.raises(NoConnectionFree):
        await client.post(at(upstream))
    may_answer.set()
    assert [each.body for each in await asyncio.gather(*late)] == [TOKEN] * 3
    assert client.late_requests == 0
    await asyncio.gather(*(client.post(at(upstream)) for _ in range(3)))
    await client.aclose()


async def test_a_request_without_a_connection_counts_as_not_sent(endpoints):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        with pytest.raises(Unreachable, match=r"can't be reached: ConnectionRefused") as lost:
            await endpoints.post(request(f"http://127.0.0.1:{port}/token"))
    assert not lost.value.was_sent


async def test_an_unresolvable_name_is_reported(endpoints, monkeypatch):
    async def unknown(*_arguments, **_options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown, raising=False)
    with pytest.raises(Unreachable, match="its name leads to no address") as lost:
        await endpoints.post(request("https://nowhere.invalid/token"))
    assert not lost.value.was_sent


async def test_nothing_is_sent_to_a_server_with_an_untrusted_certificate(endpoints, tmp_path):
    stranger = Authority(tmp_path, "stranger")
    server = RawUpstream(tls=stranger.issue("127.0.0.1").server_context()).start()
    try:
        with pytest.raises(Unreachable, match="its certificate proves nothing") as lost:
            await endpoints.post(request(f"https://127.0.0.1:{server.port}/token"))
    finally:
        server.stop()
    assert not lost.value.was_sent
    assert server.exchanges == []


async def test_a_pool_in_full_use_sends_nothing(upstream, monkeypatch):
    monkeypatch.setattr(endpoints_module, "CONNECTIONS", 1)
    client = IgnitionClient(timeout_seconds=1.2)

    async def slow(exchange) -> None:
        await exchange.read_body()
        await asyncio.sleep(0.8)
        await exchange.send(answer(TOKEN))

    upstream.plays(slow)
    first = asyncio.create_task(client.post(at(upstream)))
    await asyncio.sleep(0.1)
    with pytest.raises(NoConnectionFree, match=r"All 1 connections to Ignition .* for 0\.4 s"):
        await client.post(at(upstream))
    assert (await first).body == TOKEN
    assert len(upstream.exchanges) == 1
    await client.aclose()


@contextlib.contextmanager
def black_hole():
    """A port on which connecting takes for ever: its backlog is full."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        yield address[1]


def named(monkeypatch, *ports: int) -> None:
    """Every name leads to these, in turn."""

    async def getaddrinfo(*_arguments, **_options):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))
            for port in ports
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)


async def test_an_address_that_leads_nowhere_does_not_hold_up_the_next(
    endpoints, upstream, monkeypatch
):
    upstream.answers(answer(TOKEN))
    with black_hole() as nowhere:
        named(monkeypatch, nowhere, upstream.port)
        began = time.monotonic()
        assert (await endpoints.post(request("http://ignition.example/token"))).body == TOKEN
    assert 0.2 < time.monotonic() - began < 0.9


async def test_connecting_for_ever_ends_in_time_and_sent_nothing(monkeypatch):
    client = IgnitionClient(timeout_seconds=1.2)
    with black_hole() as nowhere:
        named(monkeypatch, nowhere)
        with pytest.raises(Unreachable, match=r"not accept connections within 0\.4 s") as lost:
            await client.post(request("http://ignition.example/token"))
    assert not lost.value.was_sent
    await client.aclose()


async def test_a_caller_that_leaves_while_it_connects_leaves_its_place(pool, upstream):
    """At every step of it: neither is the only place lost, nor is there one too many."""
    under_way = most = 0

    async def once(exchange) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        await exchange.send(answer(b"ok", b"Connection: close"))

    upstream.plays(once)
    for steps in range(25):
        leaving = asyncio.create_task(pool.send("acme", "GET", b"/", [], None))
        for _ in range(steps):
            await asyncio.sleep(0)
        leaving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await leaving).close()
        await asyncio.sleep(0.03)
        most = 0
        assert await asyncio.gather(ok(pool), ok(pool)) == [True, True]
        assert most == 1


async def test_a_caller_that_leaves_while_it_waits_hands_its_turn_on(pool, upstream):
    async def slow(exchange) -> None:
        await exchange.read_body()
        await asyncio.sleep(0.2)
        await exchange.send(OK)

    upstream.plays(slow)
    first = asyncio.create_task(ok(pool))
    await asyncio.sleep(0.05)
    second, third = asyncio.create_task(ok(pool)), asyncio.create_task(ok(pool))
    await asyncio.sleep(0.05)
    second.cancel()
    assert await first
    assert await third
    assert second.cancelled()


async def test_a_place_is_free_again_after_every_failure(pool, upstream):
    async def cut(exchange) -> None:
        raise ConnectionError

    for _ in range(3):
        upstream.plays(cut)
        with pytest.raises(ExchangeError):
            await ok(pool)
        upstream.answers(OK)
        assert await ok(pool)


async def ok(pool: Pool) -> bool:
    exchange: Exchange = await pool.send("acme", "GET", b"/", [], None)
    try:
        return await exchange.read() == b"ok"
    finally:
        exchange.close()
