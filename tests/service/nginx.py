"""A real nginx that runs the files of ``deploy/nginx``."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

import certifi
from tests.conftest import free_port, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy" / "nginx"
# Debian has it in /usr/sbin, which is not on every user's path.
BINARY = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
TEMPORARY_FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass
class Nginx:
    """``broker_port``: where the broker listens; ``trusted``: whose certificates count."""

    folder: Path
    broker_port: int
    api_url: str
    trusted: Path | None = None
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Nginx:
        self.port = free_port()
        self._write()
        # Workers started by root would drop the rights that let them into a test's folder.
        globals_ = f"daemon off; pid {self.folder}/nginx.pid;"
        globals_ += " user root;" if os.getuid() == 0 else ""
        assert BINARY is not None, "nginx is not installed; `make nginx` does it"
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [BINARY, "-e", "stderr", "-c", str(self.folder / "nginx.conf"), "-g", globals_],
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, 10, f"nginx's start ({self.log_text()})")
        return self

    def _write(self) -> None:
        shutil.copytree(DEPLOY, self.folder, dirs_exist_ok=True)
        api = urlsplit(self.api_url)
        template = (DEPLOY / "templates" / "ignition-broker.conf.template").read_text()
        filled_in = Template(template).safe_substitute(
            BROKER_ADDRESS=f"127.0.0.1:{self.broker_port}",
            IGNITION_API_URL=self.api_url,
            IGNITION_API_ADDRESS=f"127.0.0.1:{api.port}",
        )
        assert "${" not in filled_in
        folders = "".join(f"{name}_temp_path {self.folder}/{name};\n" for name in TEMPORARY_FOLDERS)
        (self.folder / "conf.d").mkdir()
        (self.folder / "conf.d" / "ignition-broker.conf").write_text(filled_in + folders)
        self._replace("nginx.conf", "listen 8080 ", f"listen 127.0.0.1:{self.port} ")
        self._replace(
            "ignition-broker/to-api.conf",
            "/etc/ssl/certs/ca-certificates.crt",
            str(self.trusted or certifi.where()),
        )

    def _replace(self, name: str, old: str, new: str) -> None:
        file = self.folder / name
        text = file.read_text()
        assert text.count(old) == 1
        file.write_text(text.replace(old, new))

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def log_text(self) -> str:
        return (self.folder / "log").read_text()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGTERM)
                self.process.wait(5)
