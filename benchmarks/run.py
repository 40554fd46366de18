"""All of it, in under ten minutes on two cores.

python -m benchmarks.run [case ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks.cases import (
    cold,
    connections,
    memory,
    proxy,
    proxy_memory,
    refresh,
    sse,
    stampede,
    startup,
    tokens,
)
from benchmarks.report import Row, table, write
from benchmarks.rounds import Figures
from benchmarks.stand import Stand, stand

PER_SECOND = "requests/s"


def token_rows(on: Stand) -> list[Row]:
    on.store_grants([f"tenant-{number}" for number in range(1, tokens.TENANTS + 1)])
    found = tokens.measure(on)
    players = {name: each.per_second for name, each in found.players.items()}
    p99 = {name: each.p99 * 1e3 for name, each in found.players.items()}
    ours, bare = players["/token"], players["bare ASGI"]
    many = f"/token, {tokens.TENANTS:,} tenants"
    return [
        Row("/token", ours, PER_SECOND, bare, "bare ASGI", 0.7),
        Row("/token, p99", p99["/token"], "ms", p99["bare ASGI"], "bare ASGI", 2, is_most=True),
        Row("/token", ours, PER_SECOND, players["Express"], "Express", 3),
        Row("/token", ours, PER_SECOND, players["FastAPI route"], "FastAPI route"),
        Row(many, players[many], PER_SECOND, bare, "bare ASGI"),
        Row(
            f"transactions in 5 s of {found.answered:,} tokens",
            found.busy,
            "transactions",
            found.idle,
            "5 s idle",
        ),
    ]


def proxy_rows(on: Stand) -> list[Row]:
    rows = []
    for file, players in proxy.measure(on).items():
        if file == "1k.json":
            rows += _small_calls(players)
        else:
            size = {"100k.bin": "100 KB", "100m.bin": "100 MB"}[file]
            rates = {name: each.bytes_per_second / 1e6 for name, each in players.items()}
            for name in ("/proxy", "nginx + /forward-auth", "Express + axios"):
                rows.append(
                    Row(f"{name}, {size}", rates[name], "MB/s", rates["nginx proxy_pass"], "nginx")
                )
    return rows


def _small_calls(players: dict[str, Figures]) -> list[Row]:
    rates = {name: each.per_second for name, each in players.items()}
    ours, lane, express = rates["/proxy"], rates["nginx + /forward-auth"], rates["Express + axios"]
    bare = "bare ASGI pass-through"
    p50, p99 = players["/proxy"].p50 * 1e3, players["/proxy"].p99 * 1e3
    return [
        Row("/proxy, 1 KB", ours, PER_SECOND, rates[bare], bare, 0.7),
        Row("/proxy, 1 KB", ours, PER_SECOND, express, "Express + axios", 4),
        Row("/proxy, 1 KB, p99", p99, "ms", p50, "its p50", 4, is_most=True),
        Row("nginx + /forward-auth, 1 KB", lane, PER_SECOND, express, "Express + axios", 6),
        Row("nginx proxy_pass, 1 KB", rates["nginx proxy_pass"], PER_SECOND),
    ]


def proxy_memory_rows(on: Stand) -> list[Row]:
    return [
        Row(f"1 GB {each.way}: memory", each.grew_by / 1e6, "MB", wanted=20, is_most=True)
        for each in proxy_memory.measure(on)
    ]


def sse_rows(on: Stand) -> list[Row]:
    found = sse.measure(on)
    return [
        Row(f"{sse.STREAMS} event streams: an event's delay, p50", found.p50 * 1e3, "ms"),
        Row(f"{sse.STREAMS} event streams: memory each", found.bytes_a_stream / 1e3, "KB"),
    ]


def refresh_rows(on: Stand) -> list[Row]:
    found = refresh.measure(on)
    if (found.renewed, found.used_again) != (refresh.GRANTS, 0):
        raise RuntimeError(f"not each grant was renewed once: {found}")
    quiet, meanwhile = found.quiet.p99 * 1e3, found.meanwhile.p99 * 1e3
    return [
        Row(f"{refresh.GRANTS:,} grants due at once", found.seconds, "s", wanted=40, is_most=True),
        Row("/token meanwhile, p99", meanwhile, "ms", quiet, "when quiet", 2, is_most=True),
    ]


def stampede_rows(on: Stand) -> list[Row]:
    found = stampede.measure(on)
    callers = f"{stampede.CALLERS:,} callers at an expiry"
    return [
        Row(f"{callers}: refreshes", found.refreshes, "refreshes", wanted=1, is_most=True),
        Row(f"{callers}: p99", found.p99 * 1e3, "ms", found.quiet_seconds * 1e3, "one refresh"),
    ]


def cold_rows(on: Stand) -> list[Row]:
    found = cold.measure(on)
    alone, together = found.alone, found.together
    one_by_one, at_once = alone.bare_reads_per_second, together.bare_reads_per_second
    many = f"/token cold, {cold.CALLERS} callers"
    tokens_at_once = together.tokens_per_second
    reads = f"asyncpg, {cold.CALLERS} reads at once"
    return [
        Row(many, tokens_at_once, PER_SECOND, one_by_one, "asyncpg, read by read", 0.5),
        Row(many, tokens_at_once, PER_SECOND, at_once, reads),
        Row(
            "/token cold, 1 caller",
            alone.tokens_per_second,
            PER_SECOND,
            one_by_one,
            "asyncpg, read by read",
        ),
    ]


def memory_rows(on: Stand) -> list[Row]:
    found = memory.measure(on)
    return [
        Row("memory idle", found.idle_bytes / 1e6, "MB", wanted=90, is_most=True),
        Row("memory a tenant", found.bytes_a_tenant / 1e3, "KB", wanted=1.2, is_most=True),
    ]


def connection_rows(on: Stand) -> list[Row]:
    return [
        Row(f"{name}, {count:,} connections: p99", each.p99 * 1e3, "ms", wanted=1000, is_most=True)
        for name, by_count in connections.measure(on, counts=(1000, 2000)).items()
        for count, each in by_count.items()
    ]


def startup_rows(on: Stand) -> list[Row]:
    seconds = startup.measure(on).ready_seconds
    return [Row("start to ready", seconds, "s", wanted=1.2, is_most=True)]


CASES: dict[str, Callable[[Stand], list[Row]]] = {
    "tokens": token_rows,
    "cold": cold_rows,
    "proxy": proxy_rows,
    "connections": connection_rows,
    "proxy-memory": proxy_memory_rows,
    "sse": sse_rows,
    "refresh": refresh_rows,
    "stampede": stampede_rows,
    "memory": memory_rows,
    "startup": startup_rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="all, unless named")
    wanted = parser.parse_args().cases or list(CASES)
    rows: list[Row] = []
    for name in wanted:
        # A database of its own for each, so that none pays for another's grants.
        with stand() as standing:
            found = CASES[name](standing)
        print(f"{name}\n{table(found)}\n", flush=True)
        rows += found
    if len(wanted) == len(CASES):
        write(rows, "Medians of alternating rounds; `benchmarks/README.md` says how.")


if __name__ == "__main__":
    main()
