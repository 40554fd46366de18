"""A real Envoy and a real Traefik with the files of ``deploy``; `make engines` installs and runs.

Where neither is installed there is nothing to collect: they are large, and no part of `make test`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests.conftest import free_port, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
BINARIES = {
    name: shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for name in ("envoy", "traefik")
}
collect_ignore_glob = [] if all(BINARIES.values()) else ["test_*"]


@dataclass
class Engine:
    name: str
    broker_port: int
    api_url: str
    folder: Path
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        binary = BINARIES[self.name]
        assert binary is not None
        if self.name == "envoy":
            self._write_envoy()
            options = ["--disable-hot-restart", "--log-level", "warning"]
            return [binary, "-c", str(self.folder / "envoy.yaml"), *options]
        self._write_traefik()
        return [binary, f"--configfile={self.folder}/traefik.yml"]

    def _write_envoy(self) -> None:
        text = (DEPLOY / "envoy" / "envoy.yaml").read_text()
        # The rest sets up TLS to the API; the test uses none.
        text = text[: text.index("      # Without this the API is called without TLS")]
        api = urlsplit(self.api_url)
        local = "address: 127.0.0.1, port_value:"
        changes = {
            "address: 0.0.0.0, port_value: 8080": f"{local} {self.port}",
            "address: broker, port_value: 3000": f"{local} {self.broker_port}",
            "address: api.ignition.com, port_value: 443": f"{local} {api.port}",
            "hostname: api.ignition.com": f'hostname: "{api.netloc}"',
            'API_ORIGIN = "https://api.ignition.com"': f'API_ORIGIN = "http://{api.netloc}"',
            'API_BASE = ""': f'API_BASE = "{api.path}"',
        }
        (self.folder / "envoy.yaml").write_text(changed(text, changes))

    def _write_traefik(self) -> None:
        api = urlsplit(self.api_url)
        routes = self.folder / "dynamic.yml"
        for name, changes in {
            "traefik.yml": {":8080": f"127.0.0.1:{self.port}", "dynamic.yml\n": f"{routes}\n"},
            "dynamic.yml": {
                "http://broker:3000": f"http://127.0.0.1:{self.broker_port}",
                "https://api.ignition.com": f"http://{api.netloc}",
                '$base := ""': f'$base := "{api.path}"',
            },
        }.items():
            text = (DEPLOY / "traefik" / name).read_text()
            (self.folder / name).write_text(changed(text, changes))

    @contextlib.contextmanager
    def running(self) -> Iterator[Engine]:
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(self.command(), stdout=log, stderr=log)

        def answers() -> bool:
            assert process.poll() is None, (self.folder / "log").read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) != 0:
                    return False
            # Traefik listens before it has read its routes.
            return httpx.get(f"{self.url}/proxy/acme/").status_code != 404

        try:
            wait_until(answers, 20, f"the start of {self.name}")
            yield self
        finally:
            process.terminate()
            process.wait(20)


def changed(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module", params=["envoy", "traefik"])
def engine(request, broker, fake, tmp_path_factory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp(request.param)
    with Engine(request.param, broker.port, fake.url, folder).running() as engine:
        yield engine
