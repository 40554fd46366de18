"""What callers and balancers see while `serve` stops."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import psutil
import pytest
from tests.conftest import Broker, sql, wait_until
from tests.service.wire import Answer, receive

DRAIN = 2.0
GRACE = 4.0
BARE = {"BROKER_DRAIN_SECONDS": "0", "BROKER_GRACE_SECONDS": str(GRACE)}
BEHIND_A_BALANCER = {"BROKER_DRAIN_SECONDS": str(DRAIN), "BROKER_GRACE_SECONDS": str(GRACE)}
WORKERS = pytest.mark.parametrize("arguments", [(), ("--workers", "2")], ids=["one", "workers"])


@pytest.fixture(scope="module")
def more_settings(upstream):
    return {"IGNITION_API_URL": f"http://127.0.0.1:{upstream.port}"}


@pytest.fixture
def started(idle_broker):
    """Starts it with these arguments and settings."""

    def start(arguments: tuple[str, ...], settings: dict[str, str]) -> Broker:
        idle_broker.arguments = arguments
        idle_broker.settings.update(settings)
        idle_broker.logs.clear()
        return idle_broker.start()

    yield start
    if idle_broker.process.poll() is None:
        workers = processes(idle_broker)
        idle_broker.stop(signal.SIGKILL)
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()


def request(broker: Broker, path: str, *headers: str) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: broker",
        f"Authorization: Bearer {broker.admin_key}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def connected(broker: Broker) -> socket.socket:
    return socket.create_connection(("127.0.0.1", broker.port), timeout=10)


def is_told_to_close(broker: Broker, kept: socket.socket) -> bool:
    kept.sendall(request(broker, "/token/acme"))
    # `Answer.read` would wait for the end of a connection that is kept.
    return b"connection: close" in receive(kept, b"}").lower()


def asked(broker: Broker, path: str, key: str = "") -> Answer:
    """On a connection of its own."""
    with connected(broker) as connection:
        connection.sendall(
            request(broker, path).replace(
                broker.admin_key.encode(), (key or broker.admin_key).encode()
            )
        )
        return Answer.read(connection)


def not_ready(broker: Broker) -> Answer | None:
    with connected(broker) as connection:
        connection.sendall(request(broker, "/readyz", "Connection: close"))
        answer = Answer.read(connection)
    return answer if answer.status == 503 else None


def stopped_in_order(broker: Broker) -> None:
    assert broker.process is not None
    assert broker.process.wait(20) == 0
    assert "Traceback" not in broker.log_text()


def processes(broker: Broker) -> list[psutil.Process]:
    """Those that accept: the workers, or the only one."""
    assert broker.process is not None
    parent = psutil.Process(broker.process.pid)
    return [each for each in parent.children() if is_worker(each)] or [parent]


def is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # It has just ended; a zombie is of this kind too.
        return False


@WORKERS
def test_in_the_drain_it_is_not_ready_and_serves_on_and_then_the_listener_closes(
    started, arguments
):
    broker = started(arguments, BEHIND_A_BALANCER)
    broker.connect("acme")
    key = broker.make_key(f"drain{len(arguments)}", ["proxy"], ["acme"])
    with connected(broker) as kept:
        kept.sendall(request(broker, "/token/acme"))
        assert b"connection: close" not in kept.recv(1 << 16).lower()
        broker.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        unready = wait_until(lambda: not_ready(broker))
        # Another worker may have it, which learns of the stop a moment later.
        wait_until(lambda: is_told_to_close(broker, kept), 1, "Connection: close")
        wait_until(lambda: all(not_ready(broker) for _ in range(20)), 1, "all workers draining")
    assert unready.values(b"content-type") == [b"application/problem+json"]
    assert b"this process has been told to stop" in unready.body
    assert unready.values(b"connection") == [b"close"]
    paths = {
        "/token/acme": broker.admin_key,
        "/proxy/acme/x": key,
        "/metrics": "x",
        "/healthz": "x",
    }
    served = 0
    while time.monotonic() - began < DRAIN - 0.9:
        for path, shown in paths.items():
            answer = asked(broker, path, shown)
            assert (answer.status, answer.values(b"connection")) == (200, [b"close"]), path
            served += 1
        time.sleep(0.05)
    assert served >= len(paths)
    stopped_in_order(broker)
    assert DRAIN < time.monotonic() - began < DRAIN + 8
    with pytest.raises(ConnectionRefusedError):
        connected(broker)


@WORKERS
def test_connections_that_wait_to_be_accepted_are_answered(started, arguments):
    broker = started(arguments, BARE)
    accepting = processes(broker)
    for process in accepting:
        process.suspend()
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connected(broker)) for _ in range(60)]
        for connection in waiting[::2]:
            connection.sendall(request(broker, "/healthz"))
        broker.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        for process in accepting:
            process.resume()
        time.sleep(0.5)
        # Their requests were still on the way.
        for connection in waiting[1::2]:
            connection.sendall(request(broker, "/healthz"))
        answers = [Answer.read(connection) for connection in waiting]
    assert {answer.status for answer in answers} == {200}
    assert all(answer.values(b"connection") == [b"close"] for answer in answers)
    stopped_in_order(broker)


@WORKERS
def test_no_connection_is_reset_while_they_keep_coming(started, arguments):
    """Each is refused, or is answered."""
    broker = started(arguments, BARE)
    broker.process.send_signal(signal.SIGTERM)
    answered = 0
    while True:
        try:
            with connected(broker) as connection:
                connection.sendall(request(broker, "/healthz"))
                raw = Answer.read(connection).raw
        except ConnectionRefusedError:
            break
        assert raw.startswith(b"HTTP/1.1 200 "), raw
        answered += 1
    assert answered
    stopped_in_order(broker)


@WORKERS
def test_what_runs_has_the_rest_of_the_grace_and_what_is_cut_is_one_line(
    started, upstream, arguments
):
    async def script(exchange) -> None:
        seconds = 20 if b"/long" in exchange.target else 1.5
        if b"/silent" not in exchange.target:
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbe")
        await asyncio.sleep(seconds)
        if b"/silent" in exchange.target:
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbe")
        await exchange.send(b"en")

    upstream.plays(script)
    broker = started(arguments, BARE)
    broker.connect("acme")
    key = broker.make_key(f"streams{len(arguments)}", ["proxy"], ["acme"])
    with contextlib.ExitStack() as stack:

        def call(path: str) -> socket.socket:
            connection = stack.enter_context(connected(broker))
            shown = request(broker, f"/proxy/acme{path}")
            connection.sendall(shown.replace(broker.admin_key.encode(), key.encode()))
            return connection

        short = [call("/stream"), call("/silent")]
        long = [call("/long"), call("/long/silent"), call("/long")]
        time.sleep(0.5)
        broker.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert [Answer.read(connection).body for connection in short] == [b"been"] * 2
        assert [Answer.read(connection).raw[-2:] for connection in long] == [b"be", b"", b"be"]
        assert GRACE - 1 < time.monotonic() - began < GRACE + 8
    stopped_in_order(broker)
    cut = re.findall(
        r'"count": (\d+).*calls_cut_off|calls_cut_off.*"count": (\d+)', broker.log_text()
    )
    assert sum(int(a or b) for a, b in cut) == 3
    if not arguments:
        assert len(cut) == 1


@WORKERS
def test_a_second_signal_ends_the_drain_at_once(started, arguments):
    broker = started(arguments, {"BROKER_DRAIN_SECONDS": "30", "BROKER_GRACE_SECONDS": "30"})
    began = time.monotonic()
    broker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not_ready(broker))
    broker.process.send_signal(signal.SIGINT)
    stopped_in_order(broker)
    assert time.monotonic() - began < 10


def test_a_signal_to_all_processes_at_once_is_no_second_one(started):
    """As a terminal's Ctrl-C is, and a stop by systemd."""
    broker = started(("--workers", "2"), BEHIND_A_BALANCER)
    began = time.monotonic()
    for process in [*processes(broker), psutil.Process(broker.process.pid)]:
        process.send_signal(signal.SIGINT)
    stopped_in_order(broker)
    assert time.monotonic() - began > DRAIN


def test_a_worker_that_dies_is_replaced_and_one_that_is_told_to_stop_too(started):
    broker = started(("--workers", "2"), BARE)
    for number in (signal.SIGKILL, signal.SIGTERM):
        before = {process.pid for process in processes(broker)}
        processes(broker)[0].send_signal(number)
        wait_until(
            lambda before=before: len({p.pid for p in processes(broker)} - before) == 1,
            what="another worker",
        )
        wait_until(lambda: len(processes(broker)) == 2)
        for _ in range(20):
            # Until both serve again, a request may wait for a worker to start.
            assert httpx.get(f"{broker.url}/healthz", timeout=40).status_code == 200
    assert broker.log_text().count("worker_ended") == 2
    wait_until(
        lambda: all(httpx.get(f"{broker.url}/readyz", timeout=40).is_success for _ in range(20))
    )
    broker.process.send_signal(signal.SIGTERM)
    stopped_in_order(broker)


def test_workers_do_not_outlive_a_parent_that_was_killed(started):
    broker = started(("--workers", "2"), BARE)
    workers = processes(broker)
    broker.process.kill()
    broker.process.wait(5)
    _gone, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
    with pytest.raises(ConnectionRefusedError):
        connected(broker)


@WORKERS
def test_a_server_that_cannot_start_ends_with_an_error(idle_broker, arguments):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = {**idle_broker.environment, "BROKER_PORT": str(taken.getsockname()[1])}
        ended = subprocess.run(
            [sys.executable, "-m", "ignition_broker", "serve", *arguments],
            env=settings,
            cwd=idle_broker.folder,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert ended.returncode != 0
    assert "address already in use" in ended.stderr.lower()


def test_nothing_falls_due_any_more_once_it_was_told_to_stop(started, fake, postgres, database_url):
    broker = started((), BEHIND_A_BALANCER)
    broker.connect("due")
    refreshes = fake.counters()["refreshes"]
    broker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not_ready(broker))
    sql(postgres, database_url, "UPDATE grants SET next_refresh_at = now() - interval '1 s'")
    with broker.client() as admin:
        assert admin.get("/token/due").status_code == 200
    stopped_in_order(broker)
    assert fake.counters()["refreshes"] == refreshes
