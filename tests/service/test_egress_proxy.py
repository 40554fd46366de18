"""The way out through an egress proxy: tunnels, refusals, and what counts as sent."""

from __future__ import annotations

import asyncio
import socket
import subprocess

import pytest
from tests.conftest import free_port, wait_until
from tests.service.certificates import Authority
from tests.service.egress_proxy import EgressProxyServer
from tests.service.nginx import BINARY
from tests.service.test_proxy_http2 import NGINX
from tests.service.wire import OK, RawUpstream

from ignition_broker.outbound.egress import Egress
from ignition_broker.outbound.egress_proxies import EgressProxies
from ignition_broker.outbound.errors import EgressProxyFailed, Unreachable
from ignition_broker.outbound.http1_pool import Limits, Pool
from ignition_broker.outbound.http2 import Http2Upstream

HOST = "api.ignition.test"
LIMITS = Limits(
    connect_timeout_seconds=0.5,
    timeout_seconds=5,
    idle_timeout_seconds=5,
    connections=10,
    idle_per_tenant=5,
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"), "inner-authority")


@pytest.fixture(scope="module")
def upstream(authority):
    server = RawUpstream(tls=authority.issue(HOST).server_context()).start()
    yield server
    server.stop()


@pytest.fixture(params=[None, "jo:p@ss"], ids=["no credentials", "credentials"])
def proxy(request):
    server = EgressProxyServer(request.param).start()
    yield server
    server.stop()


@pytest.fixture(params=[Pool, Http2Upstream], ids=["HTTP/1.1", "HTTP/2 offered"])
async def api(request, proxy, authority, upstream):
    upstream.answers(OK)
    egress = Egress(
        more_authorities=str(authority.certificate),
        proxies=EgressProxies.of(https=proxy.url, http=None, exempt=""),
    )
    client = request.param(f"https://{HOST}:{upstream.port}", LIMITS, egress=egress)
    yield client
    await client.aclose()


async def called(client, tenant: str = "acme", body: bytes | None = None) -> bytes:
    answer = await client.send(tenant, "POST", b"/a%2Fb?x=", [], body)
    text = b""
    while piece := await answer.read():
        text += piece
    return text


async def test_a_call_goes_through_a_tunnel_byte_for_byte(api, proxy, upstream):
    assert await called(api) == b"ok"
    assert upstream.last.target == b"/a%2Fb?x="
    assert upstream.last.values(b"host") == [f"{HOST}:{upstream.port}".encode()]
    assert set(proxy.targets) == {f"{HOST}:{upstream.port}"}
    assert b"authorization" not in upstream.last.head.lower()


async def test_each_tenant_has_a_tunnel_of_its_own_and_uses_it_again(api, upstream):
    for _ in range(3):
        for tenant in ("acme", "beta"):
            await called(api, tenant)
    by_connection = [exchange.connection for exchange in upstream.exchanges]
    assert len(set(by_connection[::2])) == len(set(by_connection[1::2])) == 1
    assert by_connection[0] != by_connection[1]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "answered 407: it "),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno\r\n", "answered 403."),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n", "answered 502."),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 504 Late\r\n\r\n", "answered 504."),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "sent more than its answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "too large a head"),
        (b"HTTP/1.1 200", "closed the connection"),
    ],
)
async def test_a_proxy_that_makes_no_tunnel_is_named_and_nothing_was_sent(
    api, proxy, upstream, answer, told
):
    proxy.answer = answer
    with pytest.raises(EgressProxyFailed) as failed:
        await called(api)
    assert f"The egress proxy at {proxy.name}" in failed.value.detail
    assert told in failed.value.detail
    assert not failed.value.was_sent
    assert "p@ss" not in failed.value.detail
    assert upstream.exchanges == []
    proxy.answer = None
    assert await called(api) == b"ok"


async def test_a_proxy_that_is_not_there_is_named_and_nothing_was_sent(api, proxy):
    proxy.stop()
    with pytest.raises(EgressProxyFailed, match="can't be reached: Conn") as failed:
        await called(api)
    assert proxy.name in failed.value.detail
    assert not failed.value.was_sent


async def test_a_proxy_that_is_silent_is_given_up_in_time(api, proxy):
    proxy.is_silent = True
    with pytest.raises(Unreachable, match=f"egress proxy at {proxy.name}") as failed:
        await asyncio.wait_for(called(api), 3)
    assert not failed.value.was_sent


async def test_what_broke_off_in_a_tunnel_may_have_been_sent(api, upstream):
    async def cut(exchange) -> None:
        await exchange.read_body()
        raise ConnectionError

    upstream.plays(cut)
    with pytest.raises(Unreachable) as failed:
        await called(api)
    assert failed.value.was_sent


async def test_a_server_behind_a_proxy_that_proves_nothing_is_sent_nothing(proxy, upstream):
    """A proxy that opens TLS shows a certificate of its own."""
    egress = Egress(proxies=EgressProxies.of(https=proxy.url, http=None, exempt=""))
    client = Pool(f"https://{HOST}:{upstream.port}", LIMITS, egress=egress)
    upstream.plays(upstream.script)
    with pytest.raises(Unreachable, match="its certificate proves nothing") as failed:
        await called(client)
    assert f"through the egress proxy at {proxy.name}" in failed.value.detail
    assert not failed.value.was_sent
    assert upstream.exchanges == []
    await client.aclose()


async def test_without_tls_the_proxy_is_sent_the_request_itself(proxy):
    server = RawUpstream().start()
    proxies = EgressProxies.of(https=None, http=proxy.url, exempt="")
    client = Pool(f"http://{HOST}:{server.port}", LIMITS, egress=Egress(proxies=proxies))
    try:
        assert await called(client) == b"ok"
        assert server.last.target == b"/a%2Fb?x="
        assert proxy.targets == [f"http://{HOST}:{server.port}/a%2Fb?x="]
        proxy.answer = b"HTTP/1.1 407 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        with pytest.raises(EgressProxyFailed, match="answered 407"):
            await called(client, "beta")
    finally:
        await client.aclose()
        server.stop()


async def test_what_is_exempt_goes_past_the_proxy(proxy, upstream, authority, monkeypatch):
    asked = []

    async def getaddrinfo(host, port, **_options):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    egress = Egress(
        more_authorities=str(authority.certificate),
        proxies=EgressProxies.of(https=proxy.url, http=None, exempt=".ignition.test"),
    )
    client = Pool(f"https://{HOST}:{upstream.port}", LIMITS, egress=egress)
    upstream.answers(OK)
    assert await called(client) == b"ok"
    assert (asked, proxy.targets) == ([HOST], [])
    await client.aclose()


@pytest.fixture
def http2_front(authority, tmp_path):
    """nginx's port, and what it passes requests on to."""
    behind, port, shown = RawUpstream().start(), free_port(), authority.issue(HOST)
    conf = tmp_path / "nginx.conf"
    files = {"certificate": shown.certificate, "key": shown.key}
    conf.write_text(NGINX.format(folder=tmp_path, port=port, upstream=behind.port, **files))
    assert BINARY is not None, "nginx is not installed; `make nginx` does it"
    process = subprocess.Popen([BINARY, "-c", str(conf), "-e", f"{tmp_path}/error.log"])
    wait_until(lambda: (tmp_path / "pid").exists(), what="nginx")
    yield port, behind
    process.terminate()
    process.wait(10)
    behind.stop()


async def test_http2_goes_through_a_tunnel_too(proxy, authority, http2_front):
    port, behind = http2_front
    egress = Egress(
        more_authorities=str(authority.certificate),
        proxies=EgressProxies.of(https=proxy.url, http=None, exempt=""),
    )
    client = Http2Upstream(f"https://{HOST}:{port}", LIMITS, egress)
    for _ in range(3):
        assert await called(client) == b"ok"
    assert behind.last.values(b"x-spoken") == [b"HTTP/2.0"]
    assert proxy.targets == [f"{HOST}:{port}"]
    await client.aclose()
