"""`dev`, as a new user runs it: from an empty folder, by what it prints."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time

import httpx
import pytest
from tests.conftest import consent, free_port, wait_until


class Dev:
    def __init__(self, folder, port: int, *arguments: str) -> None:
        self.output = folder / "printed.txt"
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ignition_broker", "dev", f"--port={port}", *arguments],
                cwd=folder,
                stdout=file,
                stderr=file,
            )

    def wait(self) -> str:
        def printed():
            assert self.process.poll() is None, self.output.read_text()
            return "Ctrl-C stops everything" in self.output.read_text()

        wait_until(printed, 30, "the welcome of dev")
        return self.output.read_text()

    def interrupt(self) -> float:
        """Seconds until it has ended."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(10) == 0, self.output.read_text()
        return time.monotonic() - began


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def curls(printed: str) -> list[str]:
    return re.findall(r"^ +(curl .*)$", printed, re.MULTILINE)


def run(line: str) -> str:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout


def test_what_dev_prints_works_as_pasted_and_a_second_start_finds_its_data(folder):
    port = free_port()
    dev = Dev(folder, port)
    try:
        printed = dev.wait()
        link = re.search(r"http://\S+/connect/\S+", printed)
        with httpx.Client(timeout=30) as browser:
            assert "demo is connected" in consent(browser, browser.post(link[0])).text
        token, proxy, expiry = curls(printed)
        assert '"access_token"' in run(token)
        first = run(proxy)
        assert "invalid_token" not in first
        assert run(expiry).endswith(first)

        second = subprocess.run(
            [sys.executable, "-m", "ignition_broker", "dev", f"--port={free_port()}"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert second.returncode == 1
        assert "in use" in second.stderr
        taken = subprocess.run(
            [sys.executable, "-m", "ignition_broker", "dev", f"--port={port}"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert taken.returncode == 1
        assert f"port {port} is taken" in taken.stderr
        assert dev.interrupt() < 3

        dev = Dev(folder, port)
        printed = dev.wait()
        _token, proxy, expiry = curls(printed)
        assert run(proxy) == first
        assert run(expiry).endswith(first)
        assert dev.interrupt() < 3

        dev = Dev(folder, port, "--reset")
        assert "not-connected" in run(curls(dev.wait())[0])
    finally:
        if dev.process.poll() is None:
            dev.interrupt()
