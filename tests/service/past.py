"""A database that loses commits under running replicas, and what they report."""

from __future__ import annotations

import dataclasses

from tests.conftest import sql, wait_until

TABLES = ("grants", "api_keys", "connect_links")
HANG_UP = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@dataclasses.dataclass
class Past:
    """Rows as they were, and a way back to them."""

    postgres: object
    url: str

    def keep(self) -> None:
        for table in TABLES:
            self.sql(f"DROP TABLE IF EXISTS kept_{table}")
            self.sql(f"CREATE TABLE kept_{table} AS TABLE {table}")

    def come_back(self, *, hang_up: bool = True) -> None:
        """As by a failover, which breaks all connections, or by a restored dump, which does not."""
        steps = ["BEGIN"]
        for table in TABLES:
            steps += [f"DELETE FROM {table}", f"INSERT INTO {table} SELECT * FROM kept_{table}"]
        self.sql(";".join([*steps, "COMMIT"]))
        if hang_up:
            self.sql(HANG_UP)

    def sql(self, statement: str) -> str:
        return sql(self.postgres, self.url, statement)

    def version(self, tenant: str) -> int:
        return int(self.sql(f"SELECT version FROM grants WHERE tenant_id = '{tenant}'"))


def token(client, tenant: str) -> str:
    answer = client.get(f"/token/{tenant}")
    assert answer.status_code == 200, answer.text
    return answer.json()["access_token"]


def renewed(client, tenant: str) -> str:
    answer = client.post(f"/token/{tenant}/refresh")
    assert answer.status_code == 200, answer.text
    return answer.json()["access_token"]


def renewed_soon(client, tenant: str) -> str:
    """After a failover: connections are broken, and refresh tokens left alone for a while."""
    answer = wait_until(
        lambda: (it := client.post(f"/token/{tenant}/refresh")).status_code == 200 and it, 10
    )
    return answer.json()["access_token"]


def went_back(admin, tenant: str) -> list[dict]:
    events = admin.get(f"/admin/audit?tenant={tenant}").json()["events"]
    return [event for event in reversed(events) if event["action"] == "database_went_back"]


def counted(admin, outcome: str) -> float:
    name = f'broker_database_went_back_total{{outcome="{outcome}"}} '
    lines = admin.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))
