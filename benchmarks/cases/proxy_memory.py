"""How much the broker grows while 1 GB goes up and 1 GB comes down through its proxy.

python -m benchmarks.cases.proxy_memory
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from benchmarks.stand import Stand, stand

SIZE = 1 << 30
PIECE = bytes(1 << 20)


@dataclass(frozen=True, slots=True)
class Growth:
    """Bytes of resident memory at the peak beyond those before; bytes a second."""

    way: str
    grew_by: int
    per_second: float


def measure(stand_: Stand) -> list[Growth]:
    with _api() as port, stand_.broker(IGNITION_API_URL=f"http://127.0.0.1:{port}") as broker:
        broker.get("/proxy/acme/warm", stand_.authorization)
        head = f"HTTP/1.1\r\nHost: broker\r\nAuthorization: Bearer {stand_.key}\r\n"
        up = f"POST /proxy/acme/up {head}Content-Length: {SIZE}\r\nConnection: close\r\n\r\n"
        down = f"GET /proxy/acme/down {head}Connection: close\r\n\r\n"
        return [
            _grown("up", broker.process, broker.port, up, sends=SIZE),
            _grown("down", broker.process, broker.port, down, sends=0),
        ]


def _grown(way: str, process: psutil.Process, port: int, head: str, *, sends: int) -> Growth:
    before = process.memory_info().rss
    peak, done = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    received = 0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode())
        for _ in range(sends // len(PIECE)):
            connection.sendall(PIECE)
        while piece := connection.recv(1 << 20):
            received += len(piece)
    seconds = time.monotonic() - began
    done.set()
    watcher.join()
    if not sends and received < SIZE:
        raise RuntimeError(f"only {received} bytes came down")
    return Growth(way, peak - before, SIZE / seconds)


@contextlib.contextmanager
def _api() -> Iterator[int]:
    """Takes what comes up; sends 1 GB down."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _address = listener.accept()
            except OSError:
                return
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def _answer(connection: socket.socket) -> None:
    with connection:
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(1 << 16)
        head, _, rest = received.partition(b"\r\n\r\n")
        left = (SIZE if b" /up " in head else 0) - len(rest)
        while left > 0:
            left -= len(connection.recv(1 << 20))
        size = SIZE if b" /down " in head else 0
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
        )
        for _ in range(size // len(PIECE)):
            connection.sendall(PIECE)


def main() -> None:
    with stand() as standing:
        for each in measure(standing):
            print(
                f"{each.way}: grew by {each.grew_by / 1e6:.1f} MB, {each.per_second / 1e6:.0f} MB/s"
            )


if __name__ == "__main__":
    main()
