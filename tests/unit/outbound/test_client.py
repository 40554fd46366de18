"""httpx's errors and ours say the same of a request: whether it was sent."""

from __future__ import annotations

import httpx
import pytest
import respx

from ignition_broker.outbound.answers import whole_answer
from ignition_broker.outbound.client import (
    ClientLimits,
    PoolTransport,
    exchange_error,
    http_client,
)
from ignition_broker.outbound.errors import (
    ExchangeError,
    NoConnectionFree,
    TimedOut,
    Unreachable,
)

# Every class of httpx's, by what it says; a new one has to be put here.
NOT_SENT = {
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
}
MAY_BE_SENT = {
    httpx.TransportError,
    httpx.TimeoutException,
    httpx.ReadTimeout,
    httpx.WriteTimeout,
    httpx.NetworkError,
    httpx.ReadError,
    httpx.WriteError,
    httpx.CloseError,
    httpx.ProtocolError,
    httpx.LocalProtocolError,
    httpx.RemoteProtocolError,
}


def was_sent(error: ExchangeError) -> bool:
    match error:
        case NoConnectionFree():
            return False
        case Unreachable():
            return error.was_sent
        case _:
            return isinstance(error, TimedOut)


def kinds(kind: type) -> set[type]:
    # Only httpx's own: libraries derive from them.
    own = [each for each in kind.__subclasses__() if each.__module__.startswith("httpx")]
    return {kind}.union(*(kinds(each) for each in own))


def test_every_error_of_httpx_is_known():
    assert kinds(httpx.TransportError) == NOT_SENT | MAY_BE_SENT


@pytest.mark.parametrize("kind", sorted(NOT_SENT | MAY_BE_SENT, key=lambda kind: kind.__name__))
def test_an_error_says_whether_the_request_may_have_arrived(kind):
    error = exchange_error(kind("no"))
    assert was_sent(error) is (kind in MAY_BE_SENT)
    assert kind.__name__ in error.detail


@pytest.fixture
async def http():
    transport = PoolTransport(
        ClientLimits(connections=2, connect_timeout_seconds=1), server="The server"
    )
    async with http_client(transport) as client:
        yield client


async def test_what_is_no_http_is_not_sent(http):
    with pytest.raises(Unreachable) as refused:
        await whole_answer(http, http.build_request("GET", "ftp://a.test/"), limit_bytes=9)
    assert not refused.value.was_sent


async def test_the_environment_names_no_proxy_and_no_password(monkeypatch, tmp_path, http):
    """Both come from the settings alone."""
    (tmp_path / ".netrc").write_text("machine a.test login jo password hunter2")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    with respx.mock(using="httpx") as wire:
        route = wire.get("https://a.test/").respond(302, headers={"Location": "https://b.test/"})
        answer = await whole_answer(
            http, http.build_request("GET", "https://a.test/"), limit_bytes=9
        )
    assert answer.status == 302
    assert "authorization" not in route.calls.last.request.headers


async def test_no_answer_leaves_a_cookie_for_the_next_request(http):
    """The next may be another tenant's."""
    with respx.mock(using="httpx") as wire:
        route = wire.get("https://a.test/").respond(200, headers={"Set-Cookie": "who=acme; Path=/"})
        for _ in range(2):
            await whole_answer(http, http.build_request("GET", "https://a.test/"), limit_bytes=9)
    assert "cookie" not in route.calls.last.request.headers
    assert not http.cookies
