"""nginx: as the API that is called, as a reverse proxy to measure against, and as `deploy/nginx`
has it, with tokens from the broker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
from tests.service.nginx import Nginx

from benchmarks.processes import LOAD_CORE, SERVER_CORE, free_port, running

TEMPLATE = Path(__file__).parent / "reference" / "nginx.conf"
FILES = {"1k.json": 1_000, "100k.bin": 100_000, "100m.bin": 100_000_000}


@contextlib.contextmanager
def api(folder: Path) -> Iterator[int]:
    """Static files of three sizes; the port."""
    files = folder / "files"
    files.mkdir(exist_ok=True)
    for name, size in FILES.items():
        (files / name).write_bytes(b"x" * size)
    files.chmod(0o755)
    with _nginx(folder, LOAD_CORE, "", f"root {files};") as port:
        yield port


@contextlib.contextmanager
def reverse_proxy(folder: Path, api_port: int) -> Iterator[int]:
    upstream = f"upstream api {{ server 127.0.0.1:{api_port}; keepalive 64; }}"
    location = """location /proxy/acme/ {
            proxy_pass http://api/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Authorization "Bearer xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
        }"""
    with _nginx(folder, SERVER_CORE, upstream, location) as port:
        yield port


@contextlib.contextmanager
def with_tokens_of(folder: Path, broker_port: int, api_port: int) -> Iterator[int]:
    """The files of `deploy/nginx`, with one worker."""
    folder = folder / "deployed"
    folder.mkdir()
    folder.chmod(0o755)
    server = _OneWorker(folder, broker_port, f"http://127.0.0.1:{api_port}")
    server.start()
    try:
        assert server.process is not None
        master = psutil.Process(server.process.pid)
        for each in [master, *master.children()]:
            each.cpu_affinity([SERVER_CORE])
        yield server.port
    finally:
        server.stop()


class _OneWorker(Nginx):
    def _write(self) -> None:
        super()._write()
        self._replace("nginx.conf", "worker_processes auto", "worker_processes 1")


@contextlib.contextmanager
def _nginx(folder: Path, core: int, http: str, server: str) -> Iterator[int]:
    port = free_port()
    conf = folder / f"nginx-{port}.conf"
    conf.write_text(TEMPLATE.read_text().format(folder=folder, port=port, http=http, server=server))
    with running(
        ["nginx", "-c", str(conf), "-e", f"{folder}/nginx-{port}-error.log"],
        core=core,
        port=port,
        folder=folder,
    ):
        yield port
