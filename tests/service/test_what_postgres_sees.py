"""What Postgres sees: no statement on the hot path, no transaction while Ignition is asked."""

from __future__ import annotations

import concurrent.futures
import time

from tests.conftest import sql


def transactions(postgres, url: str) -> int:
    time.sleep(1.5)  # Postgres' own counters are that late.
    statement = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    return int(sql(postgres, url, statement))


def test_a_warm_token_costs_no_statement(broker, postgres, database_url):
    """What goes on in the background (the proof of listening, the look for what is due, for what
    ends and for events to deliver) comes to some ten statements a second."""
    broker.connect("warm")
    key = broker.make_key("warm", ["token"], ["warm"])
    with broker.client(key) as service:
        assert service.get("/token/warm").status_code == 200
        time.sleep(1.5)  # A session's transactions are counted up to a second late.
        before = transactions(postgres, database_url)
        began = time.monotonic()
        for _ in range(1000):
            assert service.get("/token/warm").status_code == 200
        after = transactions(postgres, database_url)
    assert after - before < 20 * (time.monotonic() - began) + 10


def test_no_transaction_is_open_while_ignition_is_asked(broker, fake, postgres, database_url):
    broker.connect("asked")
    fake.fail("token", 1, delay_seconds=1.0)
    with concurrent.futures.ThreadPoolExecutor() as pool, broker.client() as admin:
        refreshed = pool.submit(admin.post, "/token/asked/refresh")
        time.sleep(0.5)
        states = sql(
            postgres,
            database_url,
            "SELECT coalesce(string_agg(DISTINCT state, ','), 'none') FROM pg_stat_activity "
            "WHERE application_name = 'ignition-broker' AND datname = current_database()",
        )
        held = sql(
            postgres,
            database_url,
            "SELECT lease_until > now() FROM grants WHERE tenant_id = 'asked'",
        )
        assert refreshed.result().status_code == 200
    assert states == "idle"
    assert held == "t", "it was the lease in the row that kept others away"
