"""`/token` for tenants that memory does not know, against a bare read of their rows by asyncpg."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from benchmarks.load import wrk
from benchmarks.processes import PYTHON, ROOT, SERVER_CORE, pinned
from benchmarks.stand import Stand, stand

TENANTS = 100_000
CALLERS = 20
"""Of the load to the broker, and of the bare reader to Postgres."""
SECONDS = 8
WARM_UP = 20


@dataclass(frozen=True, slots=True)
class Pace:
    """Per second, each tenant asked for once."""

    tokens_per_second: float
    p99: float
    failed: int
    bare_reads_per_second: float

    @property
    def ratio(self) -> float:
        return self.tokens_per_second / self.bare_reads_per_second


@dataclass(frozen=True, slots=True)
class Cold:
    """``alone``: one caller, who waits for each answer; ``together``: `CALLERS` of them."""

    alone: Pace
    together: Pace


def measure(on: Stand) -> Cold:
    on.store_grants([f"cold-{number:06}" for number in range(TENANTS)])
    return Cold(_pace(on, 1), _pace(on, CALLERS))


def _pace(on: Stand, callers: int) -> Pace:
    bare = _bare_reads_per_second(on, callers)
    script = on.folder / "never-twice.lua"
    script.write_text(NEVER_TWICE.format(first=WARM_UP, last=TENANTS - 1))
    # Another process each time, which knows no tenant yet.
    with on.broker() as broker:
        broker.get("/readyz", {})
        for number in range(WARM_UP):
            broker.get(f"/token/cold-{number:06}", on.authorization)
        measured = wrk(
            broker.url,
            seconds=SECONDS,
            connections=callers,
            headers=on.authorization,
            script=script,
        )
    return Pace(measured.per_second, measured.p99, measured.failed, bare)


def _bare_reads_per_second(on: Stand, connections: int) -> float:
    arguments = [on.plain_url, str(TENANTS), str(connections), str(SECONDS)]
    done = subprocess.run(
        pinned(SERVER_CORE, [PYTHON, "-m", "benchmarks.reference.bare_reads", *arguments]),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


NEVER_TWICE = """
local number = {first}
request = function()
  number = number + 1
  if number > {last} then error("no tenant is left that was never asked for") end
  return wrk.format("GET", string.format("/token/cold-%06d", number))
end
"""


if __name__ == "__main__":
    with stand() as made:
        measured = measure(made)
        for pace in (measured.alone, measured.together):
            print(pace, f"{pace.ratio:.2f}x")
