"""Load by wrk, on a core of its own, and what it read off its clock."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import LOAD_CORE, pinned

FIRST_IN_LINE = ("chrt", "--fifo", "1")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Measured:
    """``per_second``: requests; the percentiles in seconds; ``failed``: answers that are no 2xx,
    and broken connections."""

    per_second: float
    p50: float
    p99: float
    bytes_per_second: float
    failed: int


def wrk(
    url: str,
    *,
    seconds: float,
    connections: int = 32,
    headers: Mapping[str, str] | None = None,
    script: Path | None = None,
    is_first: bool = False,
) -> Measured:
    """``is_first``: wrk gets its core whenever it wants it (needs root). Without it, the time that
    wrk waits for its core counts as the server's."""
    command = [
        *(FIRST_IN_LINE if is_first else ()),
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds:.0f}s",
        "--latency",
        "--timeout",
        "20s",
    ]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    if script is not None:
        command += ["-s", str(script)]
    done = subprocess.run(
        pinned(LOAD_CORE, [*command, url]), capture_output=True, text=True, check=True
    )
    return parsed(done.stdout)


def parsed(text: str) -> Measured:
    requests = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m), ([\d.]+)([KMGT]?)B read", text)
    percentiles = dict(re.findall(r"^\s+(50|99)%\s+([\d.]+(?:us|ms|s|m)) *$", text, re.MULTILINE))
    if requests is None or len(percentiles) < 2:
        raise RuntimeError(f"wrk printed something else: {text}")
    count, seconds = int(requests[1]), float(requests[2]) * _UNITS[requests[3]]
    size = float(requests[4]) * 1024.0 ** " KMGT".index(requests[5] or " ")
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text
    )
    return Measured(
        count / seconds,
        _seconds(percentiles["50"]),
        _seconds(percentiles["99"]),
        size / seconds,
        int(refused[1] if refused else 0) + sum(map(int, broken.groups() if broken else ())),
    )


def _seconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([a-z]+)", text).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]
