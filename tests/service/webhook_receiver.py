"""A receiver of webhooks that can be told to fail or hang, killed and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tests.conftest import free_port, wait_until

PROCESS = Path(__file__).with_name("webhook_receiver_process.py")


@dataclass
class Receiver:
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/hook"

    @property
    def log(self) -> Path:
        return self.folder / f"webhooks-{self.port}.jsonl"

    def start(self) -> Receiver:
        command = [sys.executable, str(PROCESS), str(self.port), str(self.log)]
        self.process = subprocess.Popen(command)
        wait_until(lambda: httpx.get(self.url).status_code == 200, what="the receiver's start")
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def set_mode(self, mode: str) -> None:
        assert httpx.post(f"http://localhost:{self.port}/mode", content=mode).status_code == 204

    def received(self) -> list[dict[str, Any]]:
        if not self.log.exists():
            return []
        whole = (line for line in self.log.read_text().splitlines() if line.endswith("}"))
        return [json.loads(line) for line in whole]

    def taken(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The bodies that were answered 2xx, of events of that type."""
        return [
            body
            for entry in self.received()
            if entry["status"] == 204
            for body in [json.loads(entry["body"])]
            if kind in (None, body.get("type"))
        ]


def receiver(folder: Path) -> Iterator[Receiver]:
    """For a fixture."""
    started = Receiver(folder).start()
    yield started
    started.kill()
