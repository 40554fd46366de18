"""An egress proxy on a real port: tunnels by CONNECT, forwards plain HTTP, and can refuse to."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import quote


@dataclass
class EgressProxyServer:
    """Every host's name leads to this machine. ``credentials``: ``user:password`` to ask for.
    ``answer``: what it says to everybody, in place of its work; ``is_silent``: not even that."""

    credentials: str | None = None
    answer: bytes | None = None
    is_silent: bool = False
    targets: list[str] = field(default_factory=list)
    """The targets of requests that it carried out: ``host:port``, or a URL that it forwarded."""
    heads: list[bytes] = field(default_factory=list)
    port: int = 0

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        name, _, password = (self.credentials or "").partition(":")
        user = f"{name}:{quote(password)}@" if name else ""
        return f"http://{user}{self.name}"

    def start(self) -> EgressProxyServer:
        started = threading.Event()
        self._loop = asyncio.new_event_loop()

        async def run() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
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

    def reset(self) -> None:
        self.answer = None
        self.is_silent = False
        self.targets.clear()
        self.heads.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if self.is_silent:
                await reader.read()
            elif self.answer is not None:
                writer.write(self.answer)
                await writer.drain()
            elif not self._admits(head):
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                await writer.drain()
            else:
                await self._carry_out(head, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _admits(self, head: bytes) -> bool:
        if self.credentials is None:
            return True
        shown = b"Proxy-Authorization: Basic " + b64encode(self.credentials.encode()) + b"\r\n"
        return shown in head

    async def _carry_out(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        method, target, _rest = head.split(b" ", 2)
        self.targets.append(target.decode())
        origin = target if method == b"CONNECT" else target.split(b"/", 3)[2]
        there = await asyncio.open_connection("127.0.0.1", int(origin.rpartition(b":")[2]))
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
        else:
            there[1].write(head.replace(b"http://" + origin, b"", 1))
        ways = [pump(reader, there[1]), pump(there[0], writer)]
        await asyncio.gather(*ways, return_exceptions=True)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until there is no more; then the other side is told."""
    try:
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    finally:
        writer.close()
