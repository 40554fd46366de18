"""What the proxy says when the API does not answer, and when it is asked to try again."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.service.wire import OK

AT_ONCE = 3


@pytest.fixture(scope="module")
def more_settings(upstream):
    return {
        "IGNITION_API_URL": f"http://127.0.0.1:{upstream.port}",
        "BROKER_PROXY_TIMEOUT": "2",
        "BROKER_PROXY_IDLE_TIMEOUT": "1",
        "BROKER_PROXY_TENANT_CONCURRENCY": str(AT_ONCE),
    }


@pytest.fixture(scope="module")
def service(broker):
    broker.connect("acme")
    broker.connect("beta")
    with broker.client(broker.make_key("proxy", ["proxy"], ["*"])) as client:
        yield client


def test_a_call_that_waits_in_line_when_its_key_is_revoked_is_not_sent(broker, upstream, service):
    async def slow(exchange) -> None:
        await exchange.read_body()
        await asyncio.sleep(1.0)
        await exchange.send(OK)

    upstream.plays(slow)
    key = broker.make_key("queued", ["proxy"], ["beta"])
    with ThreadPoolExecutor(AT_ONCE + 1) as pool, broker.client(key) as queued:
        ahead = [pool.submit(queued.get, "/proxy/beta/ahead") for _ in range(AT_ONCE)]
        time.sleep(0.3)
        waiting = pool.submit(queued.get, "/proxy/beta/behind")
        time.sleep(0.2)
        with broker.client() as admin:
            assert admin.delete("/admin/api-keys/queued").status_code == 204
        assert [call.result().status_code for call in ahead] == [200] * AT_ONCE
        assert problem(waiting.result()) == (401, "unauthenticated", "unauthenticated")
    assert not any(b"/behind" in exchange.target for exchange in upstream.exchanges)


def problem(answer) -> tuple[int, str, str | None]:
    code = answer.json()["type"].removeprefix("urn:ignition-broker:")
    return answer.status_code, code, answer.headers.get("broker-error")


async def cut(exchange) -> None:
    await exchange.read_body()
    raise ConnectionResetError


async def silent(exchange) -> None:
    await exchange.read_body()
    await asyncio.sleep(5)


def busy(times: int, retry_after: str = "0"):
    """503 so many times, then 200."""
    left = [times]

    async def script(exchange) -> None:
        await exchange.read_body()
        if left[0]:
            left[0] -= 1
            head = f"HTTP/1.1 503 Busy\r\nRetry-After: {retry_after}\r\nContent-Length: 0\r\n\r\n"
            await exchange.send(head.encode())
        else:
            await exchange.send(OK)

    return script


def test_a_connection_that_closes_without_an_answer_is_unreachable(service, upstream):
    upstream.plays(cut)
    answer = service.post("/proxy/acme/v1/clients", content=b"x")
    assert problem(answer) == (502, "upstream-unreachable", "upstream-unreachable")
    assert len(upstream.exchanges) == 1, "a POST that may have been carried out is not sent again"


def test_an_api_that_sends_no_headers_in_time_is_a_timeout(service, upstream):
    upstream.plays(silent)
    began = time.monotonic()
    answer = service.get("/proxy/acme/v1/me")
    assert problem(answer) == (504, "upstream-timeout", "upstream-timeout")
    assert 1.8 < time.monotonic() - began < 4


@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
def test_an_error_of_the_apis_own_does_not_pass_for_the_brokers(service, upstream, status):
    upstream.answers(
        f"HTTP/1.1 {status} No\r\nBroker-Error: forged\r\nContent-Length: 2\r\n\r\nno".encode()
    )
    answer = service.get("/proxy/acme/v1/me")
    assert (answer.status_code, answer.text) == (status, "no")
    assert "broker-error" not in answer.headers


def test_a_busy_api_is_asked_again_when_the_caller_says_so(service, upstream):
    upstream.plays(busy(2))
    answer = service.get("/proxy/acme/v1/me", headers={"Broker-Retry": "3"})
    assert (answer.status_code, len(upstream.exchanges)) == (200, 3)
    assert not upstream.last.values(b"broker-retry"), "the header is the broker's alone"


@pytest.mark.parametrize(
    ("method", "asked", "retry_after", "sent"),
    [
        ("GET", None, "0", 1),
        ("GET", "1", "0", 2),
        ("PUT", "1", "0", 2),
        ("POST", "3", "0", 1),
        ("GET", "3", "60", 1),
        ("GET", "many", "0", 1),
        ("GET", "3", "soon", 1),
    ],
)
def test_a_busy_apis_answer_is_passed_on_if_the_caller_asks_for_no_retry(
    service, upstream, method, asked, retry_after, sent
):
    upstream.plays(busy(10, retry_after))
    headers = {} if asked is None else {"Broker-Retry": asked}
    answer = service.request(method, "/proxy/acme/v1/me", headers=headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, retry_after)
    assert len(upstream.exchanges) == sent


@pytest.mark.parametrize(("remaining", "sent"), [("0", 2), (None, 2), ("57", 1)])
def test_a_rate_limit_that_is_spent_says_when_to_ask_again(service, upstream, remaining, sent):
    answers = []

    async def limited(exchange) -> None:
        await exchange.read_body()
        if answers:
            await exchange.send(OK)
            return
        # Like Ignition's API: no Retry-After, and seconds since 1970.
        resets_at = int(time.time()) + 1
        head = f"HTTP/1.1 429 No\r\nX-RateLimit-Reset: {resets_at}\r\nContent-Length: 0\r\n"
        head += "" if remaining is None else f"X-RateLimit-Remaining: {remaining}\r\n"
        answers.append(time.monotonic())
        await exchange.send(f"{head}\r\n".encode())

    upstream.plays(limited)
    answer = service.get("/proxy/acme/v1/me", headers={"Broker-Retry": "1"})
    assert (answer.status_code, len(upstream.exchanges)) == (200 if sent == 2 else 429, sent)
    if sent == 2:
        assert time.monotonic() - answers[0] > 0.9


def test_a_tenant_that_floods_the_proxy_waits_in_its_own_line(service, upstream, broker):
    async def slow(exchange) -> None:
        await exchange.read_body()
        await asyncio.sleep(0.0 if b"/quick" in exchange.target else 1.0)
        await exchange.send(OK)

    upstream.plays(slow)
    with ThreadPoolExecutor(3 * AT_ONCE) as pool:
        flood = [pool.submit(service.get, "/proxy/acme/slow") for _ in range(3 * AT_ONCE)]
        time.sleep(0.4)
        assert len(upstream.exchanges) == AT_ONCE
        began = time.monotonic()
        assert service.get("/proxy/beta/quick").status_code == 200
        assert time.monotonic() - began < 0.5, "another tenant does not wait"
        answers = [call.result() for call in flood]
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] * (2 * AT_ONCE) + [503] * AT_ONCE
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert problem(refused) == (503, "unavailable", "unavailable")
    assert int(refused.headers["retry-after"]) >= 1


def test_an_api_that_nobody_listens_at_is_unreachable(service, upstream):
    """The last: its API hangs up."""
    upstream.stop()
    began = time.monotonic()
    answer = service.get("/proxy/acme/v1/me")
    assert problem(answer) == (502, "upstream-unreachable", "upstream-unreachable")
    assert time.monotonic() - began < 3
