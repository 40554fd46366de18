"""An API that leaves bytes on a kept connection: no other tenant gets them."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from tests.service.certificates import Authority
from tests.service.test_oauth_client import answer
from tests.service.wire import OK, RawCaller, RawUpstream

from ignition_broker.outbound.errors import ExchangeError
from ignition_broker.outbound.exchange import Exchange
from ignition_broker.outbound.http1_pool import Limits, Pool
from ignition_broker.outbound.http2 import Http2Upstream

FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
HEAD_2 = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
LIMITS = {"connect_timeout_seconds": 1.0, "timeout_seconds": 5.0, "idle_timeout_seconds": 5.0}


@pytest.fixture(scope="module")
def more_settings(upstream):
    return {"IGNITION_API_URL": f"http://127.0.0.1:{upstream.port}/base"}


@pytest.fixture(scope="module")
def other(broker):
    broker.connect("other")
    return RawCaller(broker.port, broker.make_key("other", ["proxy"], ["other"]), tenant="other")


async def late(exchange, head: bytes, body: bytes) -> None:
    await exchange.read_body()
    await exchange.send(head)
    await asyncio.sleep(0.1)
    with contextlib.suppress(OSError):
        await exchange.send(body)


def test_a_late_body_in_answer_to_head_reaches_no_other_tenant(caller, other, upstream):
    async def script(exchange) -> None:
        if exchange.head.startswith(b"HEAD"):
            size = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(FORGED)
            await late(exchange, size, FORGED)
        else:
            await exchange.read_body()
            await asyncio.sleep(0.2)
            await exchange.send(OK)

    upstream.plays(script)
    for _ in range(5):
        assert caller.call(b"HEAD /x").status == 200
        assert other.call(b"GET /x").body == b"ok"
        assert caller.call(b"GET /x").body == b"ok"


def test_a_body_that_is_read_as_the_next_request_is_answered_to_no_other_tenant(
    caller, other, upstream
):
    async def script(exchange) -> None:
        """Reads no body, and is slow with the second of two requests that lie there."""
        await asyncio.sleep(0.1 if b"/smuggled" in exchange.target else 0)
        await exchange.send(FORGED if b"/smuggled" in exchange.target else OK)

    upstream.plays(script)
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    for method in (b"GET", b"DELETE", b"OPTIONS", b"POST"):
        first = caller.call(method + b" /x", b"Content-Length: %d" % len(smuggled), body=smuggled)
        assert first.status == 200
        assert other.call(b"GET /x").body == b"ok"
        if method != b"POST":
            assert caller.call(b"GET /x").body == b"ok", "nor to the same tenant"
        time.sleep(0.15)


def test_each_tenant_uses_connections_of_its_own_again_and_again(caller, other, upstream):
    upstream.answers(OK)
    for _ in range(4):
        for tenant in (caller, other):
            assert tenant.call(b"GET /x").status == 200
    by_tenant: dict[bytes, set[int]] = {}
    for exchange in upstream.exchanges:
        token = exchange.values(b"authorization")[0]
        by_tenant.setdefault(token, set()).add(exchange.connection)
    first, second = by_tenant.values()
    assert len(first) == len(second) == 1
    assert first != second


@contextlib.asynccontextmanager
async def pool_at(upstream: RawUpstream, *, connections: int = 100, idle_per_tenant: int = 100):
    limits = Limits(connections=connections, idle_per_tenant=idle_per_tenant, **LIMITS)
    pool = Pool(f"http://127.0.0.1:{upstream.port}", limits)
    try:
        yield pool
    finally:
        await pool.aclose()


async def called(
    pool: Pool | Http2Upstream,
    tenant: str | None,
    *,
    method: str = "GET",
    body: bytes = b"",
    target: bytes = b"/",
) -> bytes:
    async def pieces():
        yield body

    exchange = await pool.send(tenant, method, target, [], pieces() if body else None)
    received = b""
    while piece := await exchange.read():
        received += piece
    await exchange.aclose()
    return received


def chunked(head: bytes) -> bytes:
    return head + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "body", "raw", "is_kept"),
    [
        ("GET", b"", OK, True),
        ("POST", b"x", OK, True),
        ("PUT", b"x", OK, True),
        ("PATCH", b"x", OK, True),
        ("DELETE", b"", OK, True),
        ("OPTIONS", b"", OK, True),
        ("POST", b"", b"HTTP/1.1 204 No Content\r\n\r\n", True),
        ("POST", b"", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", True),
        ("GET", b"", b"HTTP/1.1 304 Not Modified\r\n\r\n", True),
        ("GET", b"", b"HTTP/1.1 100 Continue\r\n\r\n" + OK, True),
        ("GET", b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, True),
        ("GET", b"", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", True),
        ("HEAD", b"", HEAD_2, False),
        ("HEAD", b"", chunked(b"HTTP/1.1 200 OK\r\n"), False),
        ("HEAD", b"", b"HTTP/1.1 200 OK\r\n\r\n", False),
        ("HEAD", b"", b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n", False),
        ("GET", b"x", OK, False),
        ("DELETE", b"x", OK, False),
        ("OPTIONS", b"x", OK, False),
        ("PROPFIND", b"x", OK, False),
        ("GET", b"", b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", False),
        ("GET", b"", chunked(b"HTTP/1.1 204 No Content\r\n"), False),
        ("GET", b"", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", False),
        ("GET", b"", b"HTTP/1.1 103 X\r\nContent-Length: 2\r\n\r\n" + OK, False),
        ("GET", b"", OK + b"x", False),
        ("GET", b"", OK + OK, False),
        ("GET", b"", OK + b"HTTP/1.1 100 Continue\r\n\r\n", False),
        ("GET", b"", OK.replace(b"1.1", b"1.0"), False),
        ("GET", b"", OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), False),
    ],
    ids=lambda value: repr(value[:70]) if isinstance(value, bytes) else str(value),
)
async def test_a_connection_is_kept_only_where_nothing_can_have_been_left_on_it(
    upstream, method, body, raw, is_kept
):
    upstream.answers(raw)
    async with pool_at(upstream) as pool:
        with contextlib.suppress(ExchangeError):
            await called(pool, "acme", method=method, body=body)
        first = upstream.last.connection
        upstream.answers(OK)
        assert await called(pool, "acme") == b"ok"
        assert (upstream.last.connection == first) is is_kept


async def test_an_answer_ahead_of_the_requests_end_ends_its_connection(upstream):
    async def early(exchange) -> None:
        await exchange.send(HEAD_2)
        await exchange.read_body()
        await exchange.send(b"ok")

    async def body():
        yield b"the first half"
        await asyncio.sleep(0.2)
        yield b"the second"

    upstream.plays(early)
    async with pool_at(upstream) as pool:
        exchange = await pool.send("acme", "POST", b"/", [], body())
        assert await exchange.read() == b"ok"
        first = upstream.last.connection
        upstream.answers(OK)
        assert await called(pool, "acme") == b"ok"
        assert upstream.last.connection != first


async def test_a_connection_handed_to_a_waiter_is_looked_at_first(upstream, monkeypatch):
    async def script(exchange) -> None:
        if len(upstream.exchanges) > 1:
            await exchange.send(OK)
            return
        await exchange.send(OK)
        await asyncio.sleep(0.02)
        await exchange.send(FORGED)

    def complete_and_hold_the_loop_up(self: Exchange) -> None:
        complete(self)
        # Bytes that arrive meanwhile are in the socket when the waiter's turn comes.
        time.sleep(0.1)

    complete = Exchange.complete
    monkeypatch.setattr(Exchange, "complete", complete_and_hold_the_loop_up)
    upstream.plays(script)
    async with pool_at(upstream, connections=1) as pool:
        assert await asyncio.gather(called(pool, "acme"), called(pool, "acme")) == [b"ok"] * 2
    assert len({exchange.connection for exchange in upstream.exchanges}) == 2


async def test_a_connection_that_ended_while_it_was_idle_is_not_used_even_unseen(upstream):
    async def answer_and_leave(exchange) -> None:
        await exchange.send(OK)
        exchange.writer.close()

    upstream.plays(answer_and_leave)
    async with pool_at(upstream) as pool:
        for _ in range(5):
            # POST, since it is not sent again.
            assert await called(pool, "acme", method="POST") == b"ok"
            # Blocks the event loop, so that it notices the end after the next request was sent.
            time.sleep(0.05)  # noqa: ASYNC251
    assert len(upstream.exchanges) == 5


async def test_a_waiting_tenant_is_given_the_place_and_not_the_connection(upstream):
    async def slow(exchange) -> None:
        await asyncio.sleep(0.1)
        await exchange.send(OK)

    upstream.plays(slow)
    async with pool_at(upstream, connections=1) as pool:
        tenants = ["a", "b", "b", "a", "c"]
        calls = [asyncio.create_task(called(pool, tenant)) for tenant in tenants]
        assert await asyncio.gather(*calls) == [b"ok"] * 5
    a, b1, b2, a2, c = (exchange.connection for exchange in upstream.exchanges)
    assert b1 == b2, "the same tenant's next in line goes on with it"
    assert len({a, b1, a2, c}) == 4


async def test_a_thousand_tenants_stay_within_the_pool_and_the_longest_idle_gives_way(upstream):
    upstream.answers(OK)
    upstream.most_open = before = len(upstream.open_connections)
    async with pool_at(upstream, connections=8) as pool:
        for number in range(1000):
            assert await called(pool, f"tenant-{number}") == b"ok"
        # The API learns of a connection's end a moment after another has taken its place.
        assert upstream.most_open <= before + 8 + 2
        upstream.exchanges.clear()
        made = upstream.connections
        for number in range(999, 991, -1):
            assert await called(pool, f"tenant-{number}") == b"ok"
        assert upstream.connections == made, "the newest eight were kept"
        assert await called(pool, "tenant-0") == b"ok"
        assert upstream.connections == made + 1
        assert await called(pool, "tenant-998") == b"ok"
        assert upstream.connections == made + 1
        assert await called(pool, "tenant-999") == b"ok"
        assert upstream.connections == made + 2, "it had been idle for longest"


async def test_one_tenant_keeps_no_more_idle_connections_than_its_share(upstream):
    async def slow(exchange) -> None:
        await asyncio.sleep(0.2)
        await exchange.send(OK)

    async def calls(pool: Pool) -> None:
        assert await asyncio.gather(*(called(pool, "acme") for _ in range(6))) == [b"ok"] * 6

    upstream.plays(slow)
    async with pool_at(upstream, idle_per_tenant=4) as pool:
        await calls(pool)
        made = upstream.connections
        await calls(pool)
        assert upstream.connections == made + 2


async def test_a_call_that_belongs_to_no_tenant_has_a_connection_of_its_own(upstream):
    upstream.answers(OK)
    async with pool_at(upstream) as pool:
        for tenant in (None, "acme", None, "acme", None):
            assert await called(pool, tenant) == b"ok"
    assert len({exchange.connection for exchange in upstream.exchanges}) == 4


@pytest.fixture
def http1_over_tls(tmp_path, monkeypatch):
    """An API that offers HTTP/1.1 alone, whatever it is asked for."""
    authority = Authority(tmp_path, "authority")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    server = RawUpstream(tls=authority.issue("127.0.0.1").server_context()).start()
    yield server
    server.stop()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_with_http2_allowed_an_api_of_http1_is_not_shared_by_tenants_either(
    upstream, http1_over_tls, scheme
):
    api = http1_over_tls if scheme == "https" else upstream
    api.plays(answer_with_target)
    limits = Limits(connections=100, idle_per_tenant=100, **LIMITS)
    client = Http2Upstream(f"{scheme}://127.0.0.1:{api.port}", limits)
    try:
        for tenant in ("a", "b", "a", "b"):
            target = f"/{tenant}".encode()
            assert await called(client, tenant, target=target) == target
    finally:
        await client.aclose()
    a1, b1, a2, b2 = (exchange.connection for exchange in api.exchanges)
    assert (a1, b1) == (a2, b2)
    assert a1 != b1


async def answer_with_target(exchange) -> None:
    await exchange.send(answer(exchange.target))
