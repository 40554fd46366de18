"""Processes of a benchmark, each on a core of its own, ended with their block."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

SERVER_CORE, LOAD_CORE = sorted(os.sched_getaffinity(0))[:2]
START_SECONDS = 40.0
PYTHON = sys.executable
ROOT = Path(__file__).parent.parent


def pinned(core: int, command: Sequence[str]) -> list[str]:
    return ["taskset", "-c", str(core), *command]


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    core: int,
    port: int,
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[psutil.Process]:
    """Until the block ends; begins once ``port`` accepts connections. Raises `RuntimeError` with
    what the process printed, where it does not come up."""
    log = folder / f"process-{port}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            pinned(core, command),
            env=dict(environment) if environment is not None else None,
            cwd=ROOT,
            stdout=file,
            stderr=file,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not come up: {log.read_text()[-2000:]}")
            time.sleep(0.005)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def resident_bytes(process: psutil.Process) -> int:
    """Of the process and its children: what is theirs alone, and their share of what is shared."""
    return sum(each.memory_full_info().pss for each in [process, *process.children(recursive=True)])


def uvicorn_command(app: str, port: int) -> list[str]:
    """The server that `serve` runs, around another app."""
    return [
        *(PYTHON, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port)),
        *("--http", "httptools", "--loop", "uvloop", "--no-access-log", "--log-level", "warning"),
        *("--no-server-header", "--lifespan", "off"),
    ]
