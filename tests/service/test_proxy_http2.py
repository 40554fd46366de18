"""An API that speaks HTTP/2: nginx in front of the raw upstream, which sees what went in."""

from __future__ import annotations

import asyncio
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.conftest import free_port, wait_until
from tests.service.certificates import Authority
from tests.service.nginx import BINARY
from tests.service.test_proxy_failures import problem
from tests.service.wire import OK, receive

NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log; client_max_body_size 0;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {certificate}; ssl_certificate_key {key};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1; proxy_buffering off; proxy_request_buffering off;
            proxy_set_header Connection ""; proxy_set_header X-Spoken $server_protocol;
            proxy_set_header X-Connection $connection;
        }}
    }}
}}
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"), "test-authority")


@pytest.fixture(scope="module")
def front(authority, upstream, tmp_path_factory):
    """nginx's port."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    shown = authority.issue("127.0.0.1")
    conf = folder / "nginx.conf"
    conf.write_text(
        NGINX.format(
            folder=folder,
            port=port,
            upstream=upstream.port,
            certificate=shown.certificate,
            key=shown.key,
        )
    )
    assert BINARY is not None, "nginx is not installed; `make nginx` does it"
    process = subprocess.Popen([BINARY, "-c", str(conf), "-e", f"{folder}/error.log"])
    wait_until(lambda: (folder / "pid").exists(), what="nginx")
    yield port
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="module")
def more_settings(front, authority):
    return {
        "IGNITION_API_URL": f"https://127.0.0.1:{front}/base",
        "SSL_CERT_FILE": str(authority.certificate),
        "BROKER_PROXY_HTTP2": "true",
        "BROKER_PROXY_TIMEOUT": "2",
        "BROKER_PROXY_IDLE_TIMEOUT": "1",
    }


@pytest.fixture(scope="module")
def service(broker, caller):
    with broker.client(caller.key) as client:
        yield client


def test_calls_go_over_one_http2_connection_byte_for_byte(service, upstream):
    upstream.plays(upstream.script)
    with ThreadPoolExecutor(8) as threads:
        calls = [
            threads.submit(service.get, "/proxy/acme/a%2Fb/%c3%a9?x=1&x=&q='\"+") for _ in range(16)
        ]
        assert {call.result().status_code for call in calls} == {200}
    for exchange in upstream.exchanges:
        assert exchange.target == b"/base/a%2Fb/%c3%a9?x=1&x=&q='%22+"
        assert exchange.values(b"x-spoken") == [b"HTTP/2.0"]
        assert exchange.values(b"authorization")[0].startswith(b"Bearer fake_access_")
    assert len({exchange.values(b"x-connection")[0] for exchange in upstream.exchanges}) == 1


def test_bodies_go_up_and_down(service, upstream):
    size = 3_000_000
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"y" * size)
    answer = service.post("/proxy/acme/x", content=b"x" * size)
    assert answer.content == b"y" * size
    assert upstream.last.body == b"x" * size


def test_an_event_is_not_held_back(caller, upstream):
    async def script(exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await asyncio.sleep(0.6)
        await exchange.send(b"6\r\nsecond\r\n0\r\n\r\n")

    upstream.plays(script)
    with caller.connect() as connection:
        connection.sendall(caller.head(b"GET /events"))
        assert receive(connection, b"first\r\n").endswith(b"first\r\n")
        began = time.monotonic()
        assert receive(connection, b"0\r\n\r\n").endswith(b"6\r\nsecond\r\n0\r\n\r\n")
        assert time.monotonic() - began > 0.4


def test_callers_that_go_away_leave_the_connection_to_the_others(caller, service, upstream):
    """httpcore sends no RST_STREAM: the API learns of it only once its window is full."""

    async def script(exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await exchange.wait_gone()

    upstream.plays(script)
    for _ in range(20):
        with caller.connect() as connection:
            connection.sendall(caller.head(b"GET /events"))
            assert receive(connection, b"first\r\n")
    time.sleep(0.5)
    upstream.answers(OK)
    assert service.get("/proxy/acme/x").text == "ok"


def test_a_401_is_mended_and_the_body_replayed(service, upstream):
    async def script(exchange) -> None:
        await exchange.read_body()
        if len(upstream.exchanges) == 1:
            await exchange.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nnope")
        else:
            await exchange.send(OK)

    upstream.plays(script)
    answer = service.post("/proxy/acme/x", content=b"again")
    assert (answer.status_code, upstream.last.body) == (200, b"again")
    tokens = {exchange.values(b"authorization")[0] for exchange in upstream.exchanges}
    assert len(tokens) == 2


def test_an_api_that_sends_no_headers_in_time_is_a_timeout(service, upstream):
    async def script(exchange) -> None:
        await asyncio.sleep(5)

    upstream.plays(script)
    assert problem(service.get("/proxy/acme/x")) == (504, "upstream-timeout", "upstream-timeout")


def test_an_answer_that_breaks_off_is_not_complete(caller, upstream):
    async def script(exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        raise ConnectionError

    upstream.plays(script)
    answer = caller.call(b"GET /x")
    assert b"half" in answer.body
    assert not answer.body.endswith(b"0\r\n\r\n")


def test_silence_amid_an_answer_breaks_it_off(caller, upstream):
    async def script(exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await asyncio.sleep(5)

    upstream.plays(script)
    began = time.monotonic()
    assert caller.call(b"GET /x").body == b"half"
    assert 0.8 < time.monotonic() - began < 2.5
