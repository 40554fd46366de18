"""Many connections at once, each with a request as soon as the last is answered: does any starve?

python -m benchmarks.cases.connections
"""

from __future__ import annotations

import contextlib

from benchmarks import nginx
from benchmarks.load import Measured, wrk
from benchmarks.stand import Stand, stand

COUNTS = (32, 512, 1000, 1500, 2000)
SECONDS = 8.0
PATHS = {"/token": "/token/acme", "/proxy, 1 KB": "/proxy/acme/1k.json"}


def measure(on: Stand, counts: tuple[int, ...] = COUNTS) -> dict[str, dict[int, Measured]]:
    """By route, by number of connections. Each is a process of its own, since what is measured is
    also how it takes the connections in."""
    found: dict[str, dict[int, Measured]] = {name: {} for name in PATHS}
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(nginx.api(on.folder))
        for count in counts:
            for name, path in PATHS.items():
                with on.broker(IGNITION_API_URL=f"http://127.0.0.1:{api}") as broker:
                    broker.get(path, on.authorization)
                    found[name][count] = wrk(
                        broker.url + path,
                        seconds=SECONDS,
                        connections=count,
                        headers=on.authorization,
                    )
    return found


def main() -> None:
    with stand() as standing:
        for name, by_count in measure(standing).items():
            for count, each in by_count.items():
                print(
                    f"{name:14} {count:5} connections {each.per_second:8.0f}/s  "
                    f"p50 {each.p50 * 1e3:6.0f} ms  p99 {each.p99 * 1e3:6.0f} ms  "
                    f"{each.failed} failed"
                )


if __name__ == "__main__":
    main()
