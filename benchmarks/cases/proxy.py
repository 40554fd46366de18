"""Calls through the proxy, beside the least that ASGI can do, nginx, and what a team writes.

python -m benchmarks.cases.proxy
"""

from __future__ import annotations

import contextlib
import os

from benchmarks import nginx
from benchmarks.processes import ROOT, SERVER_CORE, free_port, running, uvicorn_command
from benchmarks.rounds import Case, Figures, alternate
from benchmarks.stand import Stand, stand

SIZES = {"1k.json": (32, 4, 5), "100k.bin": (32, 3, 3), "100m.bin": (2, 3, 3)}
"""File to connections, seconds a round, and rounds."""
PLAYERS = (
    "/proxy",
    "bare ASGI pass-through",
    "nginx + /forward-auth",
    "nginx proxy_pass",
    "Express + axios",
)


def measure(stand_: Stand) -> dict[str, dict[str, Figures]]:
    """By file, by player."""
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(nginx.api(stand_.folder))
        api_url = f"http://127.0.0.1:{api}"
        broker = stack.enter_context(stand_.broker(IGNITION_API_URL=api_url))
        environment = {**os.environ, "UPSTREAM_URL": api_url, "NODE_ENV": "production"}
        bare = free_port()
        stack.enter_context(
            running(
                uvicorn_command("benchmarks.reference.pass_through:app", bare),
                core=SERVER_CORE,
                port=bare,
                folder=stand_.folder,
                environment=environment,
            )
        )
        express = free_port()
        stack.enter_context(
            running(
                ["node", str(ROOT / "benchmarks/reference/express/server.js")],
                core=SERVER_CORE,
                port=express,
                folder=stand_.folder,
                environment={**environment, "PORT": str(express)},
            )
        )
        plain = stack.enter_context(nginx.reverse_proxy(stand_.folder, api))
        lane = stack.enter_context(nginx.with_tokens_of(stand_.folder, broker.port, api))
        bases = (
            f"{broker.url}/proxy/acme",
            f"http://127.0.0.1:{bare}",
            f"http://127.0.0.1:{lane}/proxy/acme",
            f"http://127.0.0.1:{plain}/proxy/acme",
            f"http://127.0.0.1:{express}/proxy/acme",
        )
        broker.get("/proxy/acme/1k.json", stand_.authorization)
        figures = {}
        for file, (connections, seconds, rounds) in SIZES.items():
            cases = [
                Case(name, f"{base}/{file}", stand_.authorization, connections)
                for name, base in zip(PLAYERS, bases, strict=True)
            ]
            figures[file] = alternate(cases, rounds=rounds, seconds=seconds)
        return figures


def main() -> None:
    with stand() as standing:
        for file, players in measure(standing).items():
            print(file)
            for name, each in players.items():
                print(
                    f"  {name:24} {each.per_second:9.0f}/s  p50 {each.p50 * 1e3:7.2f} ms  "
                    f"p99 {each.p99 * 1e3:7.2f} ms  {each.bytes_per_second / 1e6:6.0f} MB/s  "
                    f"{each.failed} failed"
                )


if __name__ == "__main__":
    main()
