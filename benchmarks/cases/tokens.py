"""`/token` from memory, for one tenant and 100,000 at random, beside the least that ASGI can do,
a route as FastAPI's tutorial has it, and what a team writes.

    python -m benchmarks.cases.tokens
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass

from benchmarks.processes import ROOT, SERVER_CORE, free_port, running, uvicorn_command
from benchmarks.rounds import Case, Figures, alternate
from benchmarks.stand import Stand, stand

TENANTS = 100_000
ZIPF = ROOT / "benchmarks" / "zipf.lua"


@dataclass(frozen=True, slots=True)
class Tokens:
    """``idle`` and ``busy``: transactions that Postgres saw in 5 s of none and of ``answered``
    requests; what there are prove LISTEN and keep house."""

    players: dict[str, Figures]
    idle: int
    busy: int
    answered: int


def measure(stand_: Stand, *, rounds: int = 5) -> Tokens:
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(stand_.broker())
        bare, fastapi, express = free_port(), free_port(), free_port()
        for name, port in (("bare_asgi", bare), ("bare_fastapi", fastapi)):
            command = uvicorn_command(f"benchmarks.reference.{name}:app", port)
            stack.enter_context(running(command, core=SERVER_CORE, port=port, folder=stand_.folder))
        stack.enter_context(
            running(
                ["node", str(ROOT / "benchmarks/reference/express/server.js")],
                core=SERVER_CORE,
                port=express,
                folder=stand_.folder,
                environment={**os.environ, "PORT": str(express), "NODE_ENV": "production"},
            )
        )
        broker.get("/token/acme", stand_.authorization)
        bases = {
            "/token": broker.url,
            "bare ASGI": f"http://127.0.0.1:{bare}",
            "FastAPI route": f"http://127.0.0.1:{fastapi}",
            "Express": f"http://127.0.0.1:{express}",
        }
        cases = [
            Case(name, f"{base}/token/acme", stand_.authorization) for name, base in bases.items()
        ]
        many = Case(f"/token, {TENANTS:,} tenants", broker.url, stand_.authorization, script=ZIPF)
        # First: Postgres' processes report what they did late, and many tenants cost reads.
        before = _transactions(stand_)
        time.sleep(5)
        between = _transactions(stand_)
        loaded = alternate(cases[:1], rounds=1, seconds=5)["/token"]
        after = _transactions(stand_)
        players = alternate(cases, rounds=rounds, seconds=4)
        # Apart: its ten thousand audit events a second are written while the next is measured.
        players |= alternate([many], rounds=rounds, seconds=4)
        return Tokens(players, between - before, after - between, int(loaded.per_second * 5))


def _transactions(stand_: Stand) -> int:
    """Transactions of the broker's database: each statement of the hot path would be one."""
    rows = stand_.statement(
        "SELECT pg_stat_clear_snapshot(), xact_commit + xact_rollback AS n FROM pg_stat_database "
        "WHERE datname = current_database()"
    )
    return int(rows[0]["n"])


def main() -> None:
    with stand() as standing:
        standing.store_grants([f"tenant-{number}" for number in range(1, TENANTS + 1)])
        tokens = measure(standing, rounds=3)
        for name, each in tokens.players.items():
            print(
                f"{name:26} {each.per_second:8.0f}/s  p50 {each.p50 * 1e3:.2f} ms  "
                f"p99 {each.p99 * 1e3:.2f} ms  {each.failed} failed"
            )
        print(f"transactions: {tokens.idle} idle, {tokens.busy} during {tokens.answered} answers")


if __name__ == "__main__":
    main()
