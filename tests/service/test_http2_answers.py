"""Answers of an API that uvicorn would not write down: each is the API's fault (502, with
`Broker-Error`), and none leaves a traceback. Over HTTP/2, whose frames carry any bytes."""

from __future__ import annotations

import asyncio
import ssl
import threading

import h2.config
import h2.connection
import h2.events
import pytest
from tests.service.certificates import Authority
from tests.service.test_proxy_failures import problem

from ignition_broker.clock import SystemClock
from ignition_broker.model import Caller
from ignition_broker.oauth.tokens import AccessToken
from ignition_broker.outbound.http1_pool import Limits
from ignition_broker.outbound.http2 import Http2Upstream
from ignition_broker.proxy.caller_disconnects import CHECK_EVERY_SECONDS
from ignition_broker.proxy.forward import ForwardedCall, Forwarder
from ignition_broker.proxy.paging.walk import PageStreams
from ignition_broker.server.stop_state import Stopping

UNREACHABLE = (502, "upstream-unreachable", "upstream-unreachable")
OK = [(b":status", b"200"), (b"content-length", b"2")]


class Http2Api:
    """Answers each request with ``headers`` and ``body``, whatever they are."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.headers = OK
        self.body = b"ok"
        self.delay_seconds = 0.0
        started = threading.Event()
        self._loop = asyncio.new_event_loop()

        async def run() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            async with server:
                await self._ended.wait()

        self._ended = asyncio.Event()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(run(),), daemon=True
        )
        self._thread.start()
        assert started.wait(5)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        config = h2.config.H2Configuration(
            client_side=False, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        while came := await reader.read(1 << 16):
            for event in connection.receive_data(came):
                if isinstance(event, h2.events.RequestReceived):
                    await asyncio.sleep(self.delay_seconds)
                    connection.send_headers(event.stream_id, self.headers)
                    connection.send_data(event.stream_id, self.body, end_stream=True)
            writer.write(connection.data_to_send())
        writer.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"), "test-authority")


@pytest.fixture(scope="module")
def api(authority):
    shown = authority.issue("127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(shown.certificate, shown.key)
    context.set_alpn_protocols(["h2"])
    server = Http2Api(context)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def more_settings(api, authority):
    return {
        "IGNITION_API_URL": f"https://127.0.0.1:{api.port}",
        "SSL_CERT_FILE": str(authority.certificate),
        "BROKER_PROXY_HTTP2": "true",
    }


@pytest.fixture(scope="module")
def service(broker, caller):
    with broker.client(caller.key) as client:
        yield client


@pytest.fixture(autouse=True)
def _no_traceback(broker):
    yield
    assert not broker.tracebacks()
    assert "request_failed" not in broker.log_text()


@pytest.mark.parametrize(
    "headers",
    [
        *[[(b":status", status)] for status in (b"600", b"999", b"099", b"0", b"1000", b"-5")],
        *[[(b":status", status)] for status in (b"", b"ok", b"2\xc2\xb2", b"20 0")],
        [*OK, (b"x-name", b"a\r\nset-cookie: b=c")],
        [*OK, (b"x-name", b"a\nb")],
        [*OK, (b"x-name", b"a\rb")],
        [*OK, (b"x-name", b"a\x00b")],
        [*OK, (b"x-name", b"a\x7fb")],
        [*OK, (b"location", b"/x\r\n\r\nHTTP/1.1 200 OK")],
        [*OK, (b"x\r\ny", b"a")],
        [*OK, (b"x y", b"a")],
        [*OK, (b"x:y", b"a")],
        [*OK, (b"", b"a")],
        [*OK, (b"x\xe9", b"a")],
        [(b":status", b"200"), (b"content-length", b"two")],
        [(b":status", b"200"), (b"content-length", b"+2")],
        [(b":status", b"200"), (b"content-length", b"2"), (b"content-length", b"3")],
    ],
    ids=repr,
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_an_answer_that_cannot_be_written_down_is_the_apis_fault(service, api, headers, method):
    api.headers, api.body = headers, b"" if method == "HEAD" else b"ok"
    answer = service.request(method, "/proxy/acme/x")
    if method == "HEAD":
        assert answer.status_code == 502
        assert answer.headers["broker-error"] == "upstream-unreachable"
    else:
        assert problem(answer) == UNREACHABLE
    api.headers, api.body = OK, b"ok"
    assert service.get("/proxy/acme/x").text == "ok"


@pytest.mark.parametrize(
    "headers",
    [
        [(b":status", b"599"), (b"content-length", b"2")],
        [(b":status", b"200"), (b"x-name", b"\xe9\t\xff")],
        [(b":status", b"200"), (b"x-name", b"")],
        [(b":status", b"200"), (b"transfer-encoding", b"chunked"), (b"connection", b"x")],
    ],
    ids=repr,
)
def test_an_odd_http2_answer_is_passed_on_or_is_the_apis_fault(service, api, headers):
    api.headers, api.body = headers, b"ok"
    answer = service.get("/proxy/acme/x")
    if answer.status_code == 502:
        assert problem(answer) == UNREACHABLE
    else:
        assert (answer.status_code, answer.text) == (int(headers[0][1]), "ok")


@pytest.mark.parametrize("body", [b"", b"o", b"okay"])
def test_a_body_of_another_length_than_announced_is_not_made_whole(caller, api, body):
    api.headers, api.body = OK, body
    answer = caller.call(b"GET /x")
    assert answer.status in {200, 502}
    if answer.status == 200:
        assert len(answer.body) < 2


class Token:
    version = 1
    sha256 = "0"
    access_token = AccessToken("token")


class Tokens:
    def held(self, _tenant, _min_ttl_seconds):
        return Token


PAGES = PageStreams(
    SystemClock(),
    tenant_streams=1,
    stopping=Stopping(SystemClock(), grace_seconds=1),
    problem_of=lambda *_: {},
)


class AuditRecorder:
    def record_call(self, *_event):
        return None


async def test_a_call_that_lasted_gives_its_connection_back(api, authority, monkeypatch):
    """The server says that there is no more to receive once the answer is out, in the words that
    it has for a caller who left; whoever watches for that must not break off what is left to do."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    url = f"https://127.0.0.1:{api.port}"
    upstream = Http2Upstream(url, Limits(5, 5, 5, 10, 10))
    forwarder = Forwarder(
        Tokens(),
        upstream,
        SystemClock(),
        AuditRecorder(),
        PAGES,
        api_url=url,
        base_path=b"",
        replay_limit_bytes=0,
        timeout_seconds=5,
        tenant_concurrency=10,
    )
    is_answered = asyncio.Event()

    async def confirmed():
        pass

    async def receive():
        await is_answered.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.body" and not message["more_body"]:
            is_answered.set()

    api.headers, api.body, api.delay_seconds = OK, b"ok", CHECK_EVERY_SECONDS * 3
    scope = {"method": "GET", "headers": [], "query_string": b"", "state": {}}
    key = Caller("caller", frozenset(), ("acme",))
    call = ForwardedCall("acme", b"/x", b"/proxy/acme", "id", "caller", confirmed, key)
    try:
        await forwarder.forward(scope, receive, send, call)
        assert call.status == 200
        (connection,) = upstream._pool.connections
        assert connection.is_idle(), connection
    finally:
        api.delay_seconds = 0.0
        await upstream.aclose()
