"""Postgres fails over to a copy of its data that lacks the newest commits."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from tests.conftest import free_port, wait_until
from tests.service.past import counted, renewed_soon, token

from ignition_broker.embedded import EmbeddedPostgres
from ignition_broker.storage import schema


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory(prefix="ib-failover-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def own_postgres(folder):
    with EmbeddedPostgres(folder / "postgres", fsync=False, port=free_port()) as server:
        server.create_database("broker")
        schema.migrate(server.url("broker"))
        yield server


@pytest.fixture(scope="module")
def database_url(own_postgres):
    return own_postgres.url("broker")


def copy(source: Path, target: Path) -> None:
    """With its owner: the server may run under an account of its own."""
    subprocess.run(["cp", "-a", source, target], check=True)


def test_a_failover_that_loses_renewals_loses_no_grant(broker, fake, own_postgres, folder):
    """The replica that is asked first has heard of none of the renewals: they were made while its
    change feed was broken."""
    data, standby = folder / "postgres" / "data", folder / "standby"
    port = free_port()
    other = dataclasses.replace(
        broker, port=port, settings={**broker.settings, "BROKER_PORT": str(port)}, logs=[]
    ).start()
    names = ("a", "b", "c")
    for name in names:
        broker.connect(name)
    with broker.client() as admin, other.client() as second:
        for name in names:
            token(second, name)
        own_postgres.stop("fast")
        copy(data, standby)
        own_postgres.start()
        wait_until(lambda: admin.get("/readyz").status_code == 200)
        fresh = {name: renewed_soon(admin, name) for name in names}
        own_postgres.stop("immediate")
        data.rename(folder / "lost")
        copy(standby, data)
        own_postgres.start()
        for name in names:
            renewed_soon(second, name)
            assert renewed_soon(second, name) != fresh[name]
        assert counted(admin, "restored") == 3
    assert fake.counters()["refresh_token_reuses"] == 0
    grants = fake.http.get("/control/ledger").json()["grants"]
    assert [grant["alive"] for grant in grants] == [True] * 3
    other.stop()
