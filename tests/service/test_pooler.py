"""A real pgbouncer in front of Postgres: session mode works, and other modes are detected."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import subprocess
import threading
import time
from dataclasses import replace

import httpx
import pytest
from sqlalchemy import text
from tests.conftest import free_port, sql, wait_until
from tests.service.pgbouncer import pgbouncer

from ignition_broker.clock import SystemClock
from ignition_broker.storage import pooler, tenants
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import SessionsNotKept, StorageUnavailable
from ignition_broker.storage.listen import Listener

SHARED = ["transaction", "statement"]
TENANTS = ["acme", "beta", "gamma"]


@pytest.fixture(scope="module")
def bouncer(database_url):
    with pgbouncer(database_url, pool_mode="session", default_pool_size="60") as started:
        yield started


@pytest.fixture(scope="module")
def more_settings(bouncer):
    return {"DATABASE_URL": bouncer.url}


@pytest.fixture(scope="module")
def two(broker):
    """Two replicas behind a pooler in session mode."""
    port = free_port()
    settings = {**broker.settings, "BROKER_PORT": str(port)}
    other = replace(broker, settings=settings, port=port, process=None, logs=[]).start()
    for tenant in TENANTS:
        broker.connect(tenant)
    yield broker, other
    other.stop()


@pytest.fixture
def in_mode(bouncer):
    def reload(mode: str) -> None:
        bouncer.reload(pool_mode=mode)

    yield reload
    reload("session")


def metric(replica, name: str) -> float:
    lines = httpx.get(f"{replica.url}/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_session_mode_works(two):
    one, other = two
    assert one.command("migrate").returncode == 0
    for replica in two:
        assert metric(replica, "broker_listening") == 1
    with one.client() as admin, other.client() as service:
        one.connect("leaving")
        assert service.get("/token/leaving").status_code == 200
        assert admin.post("/admin/tenants/leaving/disconnect").status_code == 200
        done = time.monotonic()
        wait_until(lambda: service.get("/token/leaving").status_code == 409, 2)
        assert time.monotonic() - done < 1
    assert "listen_deaf" not in one.log_text() + other.log_text()


COMMANDS = [
    ("transaction", "serve"),
    ("statement", "serve"),
    ("transaction", "migrate"),
    ("transaction", "audit", "verify"),
]


def test_every_command_says_in_one_line_what_is_wrong_and_the_mend(idle_broker, database_url):
    with contextlib.ExitStack() as stack:
        urls = {
            mode: stack.enter_context(pgbouncer(database_url, pool_mode=mode)).url
            for mode in SHARED
        }

        def run(mode: str, *arguments: str) -> subprocess.CompletedProcess[str]:
            settings = {**idle_broker.settings, "DATABASE_URL": urls[mode]}
            return replace(idle_broker, settings=settings).command(*arguments)

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            ends = list(pool.map(lambda command: run(*command), COMMANDS))
    for ended in ends:
        assert ended.returncode == 2, ended.stderr
        assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
        assert ended.stderr.startswith("DATABASE_URL: ")
        for word in ("pooler", "pool_mode = session", "the address of Postgres itself"):
            assert word in ended.stderr


@pytest.mark.parametrize("mode", SHARED)
def test_a_pooler_that_is_changed_under_a_running_service_makes_no_answer_wrong(
    two, in_mode, postgres, database_url, mode
):
    """Each is right, or 503; `/readyz` says why, and all is well once the mode is changed back."""
    one, other = two
    wrong: list[str] = []
    stop = threading.Event()
    leaving = f"leaving-{mode}"
    for replica in two:
        wait_until(lambda replica=replica: not not_ready(replica), 10, "ready")
    one.connect(leaving)
    for replica in two:
        with replica.client() as admin:
            # It is cached, which counts only while Postgres is away, which it is not here.
            assert admin.get(f"/token/{leaving}").status_code == 200

    def ask(replica) -> None:
        with replica.client() as admin:
            number = 0
            while not stop.is_set():
                tenant = TENANTS[number % len(TENANTS)]
                number += 1
                for path in (f"/token/{tenant}", f"/admin/tenants/{tenant}"):
                    answer = admin.get(path)
                    is_right = answer.status_code == 503 or answer.json().get("tenant") == tenant
                    if answer.status_code not in (200, 503) or not is_right:
                        wrong.append(f"{path}: {answer.status_code} {answer.text}")

    threads = [threading.Thread(target=ask, args=(replica,)) for replica in (one, other) * 2]
    for thread in threads:
        thread.start()
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [thread.join() for thread in threads])
        stack.callback(stop.set)
        in_mode(mode)
        for replica in two:
            unready = wait_until(lambda replica=replica: not_ready(replica), 10, "unready")
            assert "pool_mode = session" in unready.json()["detail"]
        disconnected = "UPDATE grants SET status = 'disconnected', version = version + 1 "
        sql(postgres, database_url, f"{disconnected} WHERE tenant_id = '{leaving}'")
        time.sleep(2)
        with one.client() as first, other.client() as second:
            for client in (first, second):
                assert client.get(f"/token/{leaving}").status_code == 503
        assert metric(one, "broker_listening") == 0
        in_mode("session")
        for replica in two:
            wait_until(lambda replica=replica: not not_ready(replica), 10, "ready again")
    assert wrong == []
    with other.client() as service:
        assert service.get(f"/token/{leaving}").status_code == 409
        assert all(service.get(f"/token/{tenant}").status_code == 200 for tenant in TENANTS)


def not_ready(replica) -> httpx.Response | None:
    answer = httpx.get(f"{replica.url}/readyz", timeout=10)
    return answer if answer.status_code == 503 else None


@pytest.fixture
def looks_direct(monkeypatch):
    """A pooler that passes on the number of Postgres' process, as pgbouncer does not."""

    async def yes(_driver) -> bool:
        return True

    monkeypatch.setattr(pooler, "_is_direct", yes)


class Heard:
    def __init__(self, url: str, **more) -> None:
        self.database = Database(url, **more)
        self.proofs: list[float] = []
        self.listener = Listener(
            self.database,
            SystemClock(),
            on_notice=lambda _channel, _payload: None,
            on_alive=lambda: None,
            on_proof=self.proofs.append,
            on_deaf=lambda: None,
            on_lost=lambda: None,
        )

    @contextlib.asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.listener.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.database.aclose()


@pytest.mark.parametrize("mode", SHARED)
async def test_listen_is_not_proved_by_a_pooler_that_looks_like_postgres(
    bouncer, in_mode, looks_direct, mode
):
    """A connection that notified itself would hear that. And from then on nothing is asked."""
    in_mode(mode)
    heard = Heard(bouncer.url)
    async with heard.running():
        await asyncio.sleep(3)
        assert heard.proofs == []
        with pytest.raises(SessionsNotKept, match="pool_mode = session"):
            await heard.database.once(lambda c: c.scalar(text("SELECT 1")))


async def test_no_statement_is_taken_for_another_processs(bouncer, in_mode, looks_direct):
    """Processes that number their statements alike, as asyncpg does, on one connection."""
    in_mode("transaction")
    first, second = Database(bouncer.url, pool_size=1), Database(bouncer.url, pool_size=1)
    names = text("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE '\\_\\_asyncpg%'")
    own = text("SELECT name FROM pg_prepared_statements WHERE name LIKE '\\_\\_asyncpg%\\_\\_'")
    try:
        for database in (first, second):
            with contextlib.suppress(StorageUnavailable):
                await database.single(lambda c: tenants.read(c, "nobody"))
            with contextlib.suppress(StorageUnavailable):
                assert await database.single(lambda c: c.scalar(names)) > 0
                assert await database.single(lambda c: c.scalar(own)) is None
    finally:
        await first.aclose()
        await second.aclose()


async def test_a_lost_statement_is_never_a_fault_of_ours(bouncer, looks_direct):
    """And the connections are not used again until it is known that they keep their sessions."""
    database = Database(bouncer.url, pool_size=1)

    async def lost(connection: Connection) -> object:
        await connection.scalar(text("SELECT 40 + 2"))
        await connection._driver.execute("DEALLOCATE ALL")
        return await connection.scalar(text("SELECT 40 + 2"))

    try:
        with pytest.raises(SessionsNotKept, match="26000"):
            await database.single(lost)
        assert await database.single(lambda c: c.scalar(text("SELECT 40 + 2"))) == 42
    finally:
        await database.aclose()


async def test_a_process_proves_that_it_hears_though_its_pool_is_full(database_url):
    heard = Heard(database_url, pool_size=1)
    async with heard.running():
        sleeping = heard.database.single(lambda c: c.execute(text("SELECT pg_sleep(1.5)")))
        await sleeping
        assert len(heard.proofs) >= 3


async def test_what_breaks_the_connection_that_sends_is_no_deafness(postgres, database_url, capfd):
    heard = Heard(database_url)
    async with heard.running():
        await asyncio.sleep(0.5)
        assert heard.proofs
        await heard.database.once(lambda c: c.scalar(text("SELECT 1")))
        sql(
            postgres,
            database_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE query LIKE '%pg_notify%' AND application_name = 'ignition-broker' "
            "AND datname = current_database()",
        )
        before = len(heard.proofs)
        await asyncio.sleep(1.2)
        assert len(heard.proofs) > before
    assert "listen_deaf" not in capfd.readouterr().out
