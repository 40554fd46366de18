"""A Postgres behind TLS: the embedded one has none of its own, so a terminator stands in front."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from urllib.parse import urlsplit

import pytest
from tests.conftest import free_port
from tests.service.certificates import Authority

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


class TlsPostgres:
    """Answers the SSLRequest of Postgres' protocol (section 54.2.11), then passes bytes on."""

    def __init__(self, context: ssl.SSLContext, target_port: int) -> None:
        self.port = free_port()
        self.handshakes = 0
        self._context = context
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._is_up.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        self._is_up.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            # A client without TLS is rejected.
            if await reader.readexactly(len(SSL_REQUEST)) == SSL_REQUEST:
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(self._context)
                self.handshakes += 1
                inner = await asyncio.open_connection("127.0.0.1", self._target_port)
                await asyncio.gather(_pass(reader, inner[1]), _pass(inner[0], writer))
        writer.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"), "database-authority")


@pytest.fixture
def at(idle_broker, authority):
    """Runs a command against the database behind a certificate, with a query on its URL."""
    inner = urlsplit(idle_broker.settings["DATABASE_URL"])
    started: list[TlsPostgres] = []

    def run(*arguments: str, host: str, query: str, asked: str = "127.0.0.1", **certificate):
        shown = authority.issue(host, **certificate)
        terminator = TlsPostgres(shown.server_context(), inner.port)
        started.append(terminator)
        account = inner.netloc.rpartition("@")[0]
        there = inner._replace(netloc=f"{account}@{asked}:{terminator.port}", query=query)
        kept = idle_broker.settings["DATABASE_URL"]
        idle_broker.settings["DATABASE_URL"] = there.geturl()
        try:
            return idle_broker.command(*arguments), terminator
        finally:
            idle_broker.settings["DATABASE_URL"] = kept

    yield run
    for terminator in started:
        terminator.stop()


@pytest.mark.parametrize("arguments", [("migrate",), ("tenants", "list", "--json")])
def test_the_databases_name_is_verified_if_the_url_requires_it(at, authority, arguments):
    query = f"sslmode=verify-full&sslrootcert={authority.certificate}"
    ended, terminator = at(*arguments, host="127.0.0.1", query=query)
    assert ended.returncode == 0, ended.stderr
    assert terminator.handshakes > 0


@pytest.mark.parametrize("arguments", [("migrate",), ("tenants", "list", "--json")])
@pytest.mark.parametrize("fault", ["of an unknown authority", "for another host"])
def test_a_database_with_an_untrusted_certificate_is_not_used(
    at, authority, tmp_path, arguments, fault
):
    trusted, host = authority, "db.example.com"
    if fault == "of an unknown authority":
        trusted, host = Authority(tmp_path, "another-authority"), "127.0.0.1"
    query = f"sslmode=verify-full&sslrootcert={trusted.certificate}"
    ended, terminator = at(*arguments, host=host, query=query)
    assert (ended.returncode, len(ended.stderr.strip().splitlines())) == (1, 1), ended.stderr
    assert terminator.handshakes == 0


@pytest.mark.parametrize("arguments", [("migrate",), ("tenants", "list", "--json")])
def test_a_common_name_is_not_the_databases_name(at, authority, arguments):
    query = f"sslmode=verify-full&sslrootcert={authority.certificate}"
    ended, terminator = at(*arguments, host="localhost", asked="localhost", query=query)
    assert ended.returncode == 0, ended.stderr
    assert terminator.handshakes > 0
    ended, terminator = at(
        *arguments, host="localhost", asked="localhost", query=query, has_alternative_names=False
    )
    assert (ended.returncode, len(ended.stderr.strip().splitlines())) == (1, 1), ended.stderr
    assert terminator.handshakes == 0
