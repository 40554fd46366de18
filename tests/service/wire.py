"""Both ends of the proxy on raw sockets: an upstream that records what it saw, and a caller."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Exchange:
    """One request as the upstream's socket saw it. Times are of `time.monotonic`."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bytes = b""
    body: bytes = b""
    """As on the wire, chunk sizes and all."""
    body_bytes: int = 0
    gone_at: float | None = None
    connection: int = 0

    @property
    def target(self) -> bytes:
        return self.head.split(b" ")[1]

    @property
    def lines(self) -> list[bytes]:
        return self.head.rstrip(b"\r\n").split(b"\r\n")[1:]

    def values(self, name: bytes) -> list[bytes]:
        pairs = [line.split(b": ", 1) for line in self.lines]
        return [value for key, value in pairs if key.lower() == name]

    async def read_body(self, *, is_kept: bool = True) -> bytes:
        if self.values(b"transfer-encoding"):
            size = -1
            while size != 0:
                line = await self.reader.readline()
                size = int(line, 16)
                await self._take(size, is_kept=is_kept, prefix=line)
                await self._take(2, is_kept=is_kept, counts=False)
        for length in self.values(b"content-length"):
            await self._take(int(length), is_kept=is_kept)
        return self.body

    async def _take(
        self, size: int, *, is_kept: bool, prefix: bytes = b"", counts: bool = True
    ) -> None:
        if is_kept:
            self.body += prefix
        while size:
            piece = await self.reader.read(min(size, 1 << 20))
            if not piece:
                raise ConnectionResetError
            size -= len(piece)
            self.body_bytes += len(piece) if counts else 0
            if is_kept:
                self.body += piece

    async def send(self, piece: bytes) -> None:
        self.writer.write(piece)
        await self.writer.drain()

    async def wait_gone(self) -> None:
        """Until the proxy gives the connection up."""
        with contextlib.suppress(OSError):
            while await self.reader.read(1 << 16):
                pass
        self.gone_at = time.monotonic()


async def answer_ok(exchange: Exchange) -> None:
    await exchange.read_body()
    await exchange.send(OK)


Script = Callable[[Exchange], Awaitable[None]]


@dataclass
class RawUpstream:
    """``script`` plays the answer; a script that raises `ConnectionError` cuts the connection."""

    script: Script = answer_ok
    exchanges: list[Exchange] = field(default_factory=list)
    connections: int = 0
    most_open: int = 0
    """At once, since it was last set."""
    port: int = 0
    tls: ssl.SSLContext | None = None
    open_connections: set[int] = field(default_factory=set)

    def start(self) -> RawUpstream:
        started = threading.Event()
        self._loop = asyncio.new_event_loop()

        async def run() -> None:
            server = await asyncio.start_server(
                self._serve, "127.0.0.1", 0, limit=1 << 20, ssl=self.tls
            )
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            async with server:
                await server.serve_forever()

        def work() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._task)
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    self._loop.run_until_complete(task)
            self._loop.close()

        self._task = self._loop.create_task(run())
        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()
        assert started.wait(5)
        return self

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(5)

    def plays(self, script: Script) -> None:
        self.exchanges.clear()
        self.script = script

    def answers(self, answer: bytes) -> None:
        async def script(exchange: Exchange) -> None:
            await exchange.read_body()
            await exchange.send(answer)

        self.plays(script)

    @property
    def last(self) -> Exchange:
        return self.exchanges[-1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        self.open_connections.add(connection)
        self.most_open = max(self.most_open, len(self.open_connections))
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                exchange = Exchange(reader, writer, head, connection=connection)
                self.exchanges.append(exchange)
                await self.script(exchange)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.open_connections.discard(connection)
            writer.close()


@dataclass
class RawCaller:
    """Sends bytes to the broker and takes what comes."""

    port: int
    key: str
    tenant: str = "acme"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def head(self, line: bytes, *headers: bytes, is_kept: bool = False) -> bytes:
        """``line``: method and what follows ``/proxy/{tenant}`` in the target."""
        method, _, path = line.partition(b" ")
        target = b"/proxy/" + self.tenant.encode() + path
        lines = [
            method + b" " + target + b" HTTP/1.1",
            b"Host: broker",
            b"Authorization: Bearer " + self.key.encode(),
            *headers,
            *([] if is_kept else [b"Connection: close"]),
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def call(self, line: bytes, *headers: bytes, body: bytes = b"") -> Answer:
        return self.send(self.head(line, *headers) + body)

    def send(self, request: bytes) -> Answer:
        with self.connect() as connection:
            connection.sendall(request)
            return Answer.read(connection)


def receive(connection: socket.socket, ending: bytes) -> bytes:
    """What came until ``ending`` or the connection's end."""
    raw = b""
    while not raw.endswith(ending) and (piece := connection.recv(1 << 16)):
        raw += piece
    return raw


@dataclass(frozen=True)
class Answer:
    """All that came until the broker closed the connection."""

    raw: bytes

    @classmethod
    def read(cls, connection: socket.socket) -> Answer:
        pieces = []
        try:
            while piece := connection.recv(1 << 20):
                pieces.append(piece)
        except ConnectionResetError:
            pass
        return cls(b"".join(pieces))

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def lines(self) -> list[bytes]:
        return self.raw.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]

    def values(self, name: bytes) -> list[bytes]:
        pairs = [line.split(b": ", 1) for line in self.lines]
        return [value for key, value in pairs if key.lower() == name]

    @property
    def body(self) -> bytes:
        """As on the wire, chunk sizes and all."""
        return self.raw.partition(b"\r\n\r\n")[2]
