"""`/proxy` where a tenant's calls are counted, beside `/proxy` where they are not.

python -m benchmarks.cases.allowance
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from benchmarks import nginx
from benchmarks.load import wrk
from benchmarks.stand import Broker, Stand, stand

ENOUGH = "1000000000/3600"
"""So many calls that none is refused."""
STARTS = 10
"""Two processes of the same code differ by some per cent for as long as they live."""
ROUNDS = 6
"""With each pair of processes."""
SECONDS = 1
CONNECTIONS = 16
WARM_UP_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Pace:
    """``per_second``: calls; ``cpu_seconds``: of the broker's process, a call."""

    per_second: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Compared:
    """Medians over the rounds. The ratios, counted to not counted, are means over the pairs of
    processes; ``deviation``: the standard deviation of that mean, for the CPU's."""

    without: Pace
    counted: Pace
    rate_ratio: float
    cpu_ratio: float
    deviation: float


def measure(on: Stand) -> Compared:
    """Two processes on one core, loaded in turn, so that what else the machine does meets both; and
    that anew with others."""
    with nginx.api(on.folder) as port:
        starts = [_rounds(on, f"http://127.0.0.1:{port}") for _ in range(STARTS)]
    without, counted = ([pair[which] for pairs in starts for pair in pairs] for which in (0, 1))
    cpu = [_ratio(pairs, lambda pace: pace.cpu_seconds) for pairs in starts]
    return Compared(
        _median(without),
        _median(counted),
        statistics.mean(_ratio(pairs, lambda pace: pace.per_second) for pairs in starts),
        statistics.mean(cpu),
        statistics.stdev(cpu) / STARTS**0.5,
    )


def _rounds(on: Stand, api_url: str) -> list[tuple[Pace, Pace]]:
    """Not counted, and counted, by one pair of processes."""
    with contextlib.ExitStack() as stack:
        api = {"IGNITION_API_URL": api_url}
        plain = stack.enter_context(on.broker(**api))
        counting = stack.enter_context(on.broker(**api, IGNITION_API_ALLOWANCE=ENOUGH))
        answer = counting.get("/proxy/acme/1k.json", on.authorization)
        assert "broker-allowance-remaining" in answer.headers
        for broker in (plain, counting):
            _pace(on, broker, WARM_UP_SECONDS)
        pairs = []
        for number in range(ROUNDS):
            first, second = (plain, counting) if number % 2 else (counting, plain)
            one, two = _pace(on, first, SECONDS), _pace(on, second, SECONDS)
            pairs.append((one, two) if number % 2 else (two, one))
    return pairs


def _ratio(pairs: list[tuple[Pace, Pace]], figure: Callable[[Pace], float]) -> float:
    return statistics.median(figure(counted) / figure(without) for without, counted in pairs)


def _pace(on: Stand, broker: Broker, seconds: float) -> Pace:
    before = _cpu_seconds(broker.process)
    measured = wrk(
        f"{broker.url}/proxy/acme/1k.json",
        seconds=seconds,
        connections=CONNECTIONS,
        headers=on.authorization,
    )
    if measured.failed:
        raise RuntimeError(f"{measured.failed} calls failed")
    spent = _cpu_seconds(broker.process) - before
    return Pace(measured.per_second, spent / (measured.per_second * seconds))


def _cpu_seconds(process: psutil.Process) -> float:
    """As the scheduler counts it, in nanoseconds; `cpu_times` has hundredths of a second."""
    with open(f"/proc/{process.pid}/schedstat", encoding="ascii") as lines:
        return int(lines.read().split()[0]) / 1e9


def _median(paces: list[Pace]) -> Pace:
    return Pace(
        statistics.median(pace.per_second for pace in paces),
        statistics.median(pace.cpu_seconds for pace in paces),
    )


def main() -> None:
    with stand() as standing:
        compared = measure(standing)
    for name, pace in (("without", compared.without), ("counted", compared.counted)):
        print(f"{name:8} {pace.per_second:7.0f}/s  {pace.cpu_seconds * 1e6:5.1f} us of CPU a call")
    print(
        f"counted / without: rate {compared.rate_ratio:.3f}, CPU {compared.cpu_ratio:.3f} "
        f"+/- {compared.deviation:.3f}"
    )


if __name__ == "__main__":
    main()
