"""Fixtures that start real things: a Postgres, the fake Ignition, `serve`, a browser's sign-in."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import uvicorn
from cryptography.fernet import Fernet

from ignition_broker.embedded import EmbeddedPostgres
from ignition_broker.fake_ignition import FakeIgnitionOptions, create_fake_ignition
from ignition_broker.storage import schema

# The tests call only this machine, which no proxy can reach.
for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
    for inherited in (name, name.upper()):
        os.environ.pop(inherited, None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition, seconds: float = 45.0, what: str = "the condition"):
    """The first true value of ``condition()``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            value = condition()
            if value:
                return value
        time.sleep(0.02)
    pytest.fail(f"{what} did not come true within {seconds} s")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sql(postgres: EmbeddedPostgres, url: str, statement: str) -> str:
    """What psql prints, bare."""
    command = [postgres.binary("psql"), url.replace("+asyncpg", ""), "-Atc", statement]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class Fake:
    """The fake Ignition on a real port, in a thread of its own."""

    def __init__(self, **options) -> None:
        self.port = free_port()
        self.url = f"http://localhost:{self.port}"
        self.options = FakeIgnitionOptions(**options)
        self._app = create_fake_ignition(self.options)
        self.listen()
        self.http = httpx.Client(base_url=self.url)

    def listen(self) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(self._app, host="127.0.0.1", port=self.port, log_config=None)
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        wait_until(lambda: self._server.started, what="the fake Ignition's start")

    def hang_up(self) -> None:
        """Nobody listens until `listen`; what it knows stays."""
        self._server.should_exit = True
        self._thread.join(5)

    def control(self, verb: str, **body):
        answer = self.http.post(f"/control/{verb}", json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def fail(self, endpoint: str, count: int = 1, **fault) -> None:
        self.control("fail", endpoint=endpoint, count=count, **fault)

    def counters(self) -> dict[str, int]:
        return self.http.get("/control/counters").json()

    def stop(self) -> None:
        self.http.close()
        self.hang_up()


@dataclass
class Broker:
    """`serve` processes, the settings they run with, and clients that call them."""

    settings: dict[str, str]
    port: int
    admin_key: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    arguments: tuple[str, ...] = ()
    logs: list[Path] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def start(self) -> Broker:
        log = self.folder / f"serve-{self.port}-{len(self.logs)}.log"
        self.logs.append(log)
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ignition_broker", "serve", *self.arguments],
                env=self.environment,
                cwd=self.folder,
                stderr=file,
                stdout=file,
            )
        wait_until(self._is_ready, 120, what=f"ready ({log.read_text()})")
        return self

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.logs[-1].read_text()
        return httpx.get(f"{self.url}/readyz").status_code == 200

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BROKER_", "IGNITION_", "DATABASE_URL", "REDIRECT_URI"))
        }
        return {**kept, **self.settings}

    def command(self, *arguments: str, **more) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ignition_broker", *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            **more,
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def log_text(self) -> str:
        return "".join(log.read_text() for log in self.logs)

    def tracebacks(self) -> list[str]:
        """The lines of the log that hold one, in the words of either format."""
        return [
            line
            for line in self.log_text().splitlines()
            if '"exception":' in line or "Traceback" in line or "Exception in" in line
        ]

    def client(self, key: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key or self.admin_key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def make_key(self, name: str, scopes: list[str], tenants: list[str], **more) -> str:
        with self.client() as admin:
            answer = admin.post(
                "/admin/api-keys",
                json={"name": name, "scopes": scopes, "tenants": tenants, **more},
            )
        assert answer.status_code == 201, answer.text
        return answer.json()["key"]

    def connect(self, tenant: str, *, approve: str = "approve") -> httpx.Response:
        """Connects a tenant as a browser does, by a one-time link; returns the last page."""
        with self.client() as admin:
            link = admin.post(f"/admin/tenants/{tenant}/connect-link").json()["url"]
        with httpx.Client(timeout=30) as browser:
            assert browser.get(link).status_code == 200
            return consent(browser, browser.post(link), approve=approve)


def consent(browser: httpx.Client, answer: httpx.Response, *, approve: str = "approve"):
    """From the redirect to Ignition, through the click on its page, to our callback's page."""
    assert answer.status_code == 303, answer.text
    return follow(browser, decide(browser, answer.headers["location"], approve=approve))


def decide(browser: httpx.Client, authorization_url: str, *, approve: str = "approve") -> str:
    """The consent click; the callback's URL."""
    shown = browser.get(authorization_url)
    assert shown.status_code == 200, shown.text
    fields = dict(re.findall(r'name="([^"]+)"\s+value="([^"]*)"', shown.text))
    fields = {name: unescape(value) for name, value in fields.items()}
    button = re.search(rf'<button[^>]*id="{approve}"[^>]*>', shown.text)
    assert button is not None, shown.text
    name = re.search(r'name="([^"]+)"', button[0])
    value = re.search(r'value="([^"]*)"', button[0])
    if name and value:
        fields[name[1]] = value[1]
    origin = re.match(r"https?://[^/]+", authorization_url)
    assert origin is not None
    action = re.search(r'<form[^>]*action="([^"]+)"', shown.text)
    assert action is not None, shown.text
    answer = browser.post(f"{origin[0]}{action[1]}", data=fields)
    assert answer.is_redirect, answer.text
    return answer.headers["location"]


def unescape(text: str) -> str:
    from html import unescape as unescaped

    return unescaped(text)


def follow(browser: httpx.Client, url: str) -> httpx.Response:
    return browser.get(url)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    with tempfile.TemporaryDirectory(prefix="ib-pg-") as folder:
        os.chmod(folder, 0o755)
        with EmbeddedPostgres(Path(folder) / "postgres", fsync=False) as server:
            server.create_database("template_broker")
            schema.migrate(server.url("template_broker"))
            yield server


@pytest.fixture(scope="module")
def database_url(postgres: EmbeddedPostgres) -> str:
    name = f"broker_{secrets.token_hex(4)}"
    postgres.create_database(name, template="template_broker")
    return postgres.url(name)


@pytest.fixture(scope="module")
def callback_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def fake_options() -> dict[str, object]:
    """A module overrides this to have another fake."""
    return {}


@pytest.fixture(scope="module")
def more_settings() -> dict[str, str]:
    """A module overrides this to have other settings."""
    return {}


@pytest.fixture(scope="module")
def fake(callback_port: int, fake_options: dict[str, object]) -> Iterator[Fake]:
    server = Fake(
        client_secret=secrets.token_urlsafe(24),
        redirect_uris=(f"http://localhost:{callback_port}/callback",),
        **fake_options,
    )
    yield server
    server.stop()


@pytest.fixture(scope="module")
def idle_broker(
    database_url: str,
    callback_port: int,
    fake: Fake,
    more_settings: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Broker]:
    """Set up, not started."""
    admin_key = secrets.token_urlsafe(32)
    settings = {
        "IGNITION_CLIENT_ID": fake.options.client_id,
        "IGNITION_CLIENT_SECRET": fake.options.client_secret,
        "REDIRECT_URI": f"http://localhost:{callback_port}/callback",
        "IGNITION_AUTHORIZE_URL": f"{fake.url}/oauth/authorize",
        "IGNITION_TOKEN_URL": f"{fake.url}/oauth/token",
        "IGNITION_REVOKE_URL": f"{fake.url}/oauth/revoke",
        "IGNITION_API_URL": fake.url,
        "IGNITION_SCOPES": "read write",
        "DATABASE_URL": database_url,
        "BROKER_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
        "BROKER_ADMIN_KEY": admin_key,
        "BROKER_PORT": str(callback_port),
        "BROKER_LOG_LEVEL": "DEBUG",
        "BROKER_LOG_FORMAT": "json",
        "BROKER_PROVIDER_TIMEOUT": "2",
        # There is no load balancer that would have to notice a stop.
        "BROKER_DRAIN_SECONDS": "0",
        "BROKER_GRACE_SECONDS": "7",
        **more_settings,
    }
    broker = Broker(settings, callback_port, admin_key, tmp_path_factory.mktemp("serve"))
    yield broker
    if broker.process is not None and broker.process.poll() is None:
        broker.process.send_signal(signal.SIGCONT)
        broker.stop()


@pytest.fixture(scope="module")
def broker(idle_broker: Broker) -> Broker:
    return idle_broker.start()


@pytest.fixture(autouse=True)
def _faults_end_with_their_test(request: pytest.FixtureRequest) -> Iterator[None]:
    # Requested before the test, so that it is torn down after this. A module with its own `fake`
    # has no `fake_options`.
    fake = request.getfixturevalue("fake") if "fake_options" in request.fixturenames else None
    yield
    if fake is not None:
        fake.control("reset")
