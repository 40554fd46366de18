"""An API behind TLS: whose certificate is believed, and that it works like one without."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.service.certificates import Authority
from tests.service.wire import OK, RawUpstream


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"), "test-authority")


@pytest.fixture(scope="module")
def upstream(authority):
    server = RawUpstream(tls=authority.issue("127.0.0.1").server_context()).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def more_settings(upstream, authority):
    return {
        "IGNITION_API_URL": f"https://127.0.0.1:{upstream.port}/base",
        "SSL_CERT_FILE": str(authority.certificate),
    }


@pytest.fixture(scope="module")
def service(broker, caller):
    with broker.client(caller.key) as client:
        yield client


def test_calls_go_over_tls_byte_for_byte_on_kept_connections(service, upstream):
    upstream.plays(upstream.script)
    for _ in range(3):
        body = b"x" * 3_000_000
        answer = service.post("/proxy/acme/a%2Fb?x=1&x=", content=body)
        assert (answer.status_code, answer.text) == (200, "ok")
        assert upstream.last.target == b"/base/a%2Fb?x=1&x="
        assert upstream.last.body == body
    assert len({exchange.connection for exchange in upstream.exchanges}) == 1


def test_a_large_answer_comes_whole(service, upstream):
    size = 20_000_000
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"y" * size)
    assert service.get("/proxy/acme/x").content == b"y" * size


@pytest.mark.parametrize("fault", ["of an unknown authority", "for another host", "expired"])
def test_an_untrusted_certificate_is_refused(service, upstream, authority, tmp_path, fault):
    """The last: its API changes its certificate."""
    shown = {
        "of an unknown authority": lambda: Authority(tmp_path, "other").issue("127.0.0.1"),
        "for another host": lambda: authority.issue("elsewhere.example"),
        "expired": lambda: authority.issue("127.0.0.1", valid_for=-timedelta(hours=1)),
    }[fault]()
    upstream.tls.load_cert_chain(shown.certificate, shown.key)
    upstream.plays(upstream.script)

    async def hang_up(exchange) -> None:
        await exchange.read_body()
        await exchange.send(OK[:-2].replace(b"OK\r\n", b"OK\r\nConnection: close\r\n") + b"ok")
        raise ConnectionError

    upstream.plays(hang_up)
    service.get("/proxy/acme/x")
    upstream.exchanges.clear()
    answer = service.get("/proxy/acme/x")
    assert answer.status_code == 502
    assert answer.headers["broker-error"] == "upstream-unreachable"
    assert upstream.exchanges == []
