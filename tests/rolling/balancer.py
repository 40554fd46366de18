"""A balancer as simple as they come: connections in turn to the replicas that said they were ready
when it last looked. It tries no other where one refuses."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

ASK = b"GET /readyz HTTP/1.1\r\nHost: balancer\r\nConnection: close\r\n\r\n"
LOOK_TIMEOUT_SECONDS = 3.0


@dataclass
class Balancer:
    ports: list[int]
    """Of the replicas."""
    look_seconds: float
    port: int = 0
    ready: list[int] = field(default_factory=list)
    turns: int = 0
    refused: int = 0
    """Connections that a replica did not take although it had last said it was ready."""
    _serving: set[asyncio.Task[None]] = field(default_factory=set)
    _looked: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.asynccontextmanager
    async def running(self):
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1000)
        self.port = server.sockets[0].getsockname()[1]
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            looking.cancel()
            server.close()

    async def until_ready(self, *ports: int) -> None:
        while not {*ports} <= {*self.ready}:
            self._looked.clear()
            await self._looked.wait()

    async def _look(self) -> None:
        while True:
            ready = await asyncio.gather(*(_is_ready(port) for port in self.ports))
            self.ready = [
                port for port, is_ready in zip(self.ports, ready, strict=True) if is_ready
            ]
            self._looked.set()
            await asyncio.sleep(self.look_seconds)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio keeps no reference to a task by itself.
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            if not self.ready:
                self.refused += 1
                return
            self.turns += 1
            port = self.ready[self.turns % len(self.ready)]
            try:
                from_replica, to_replica = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                self.refused += 1
                return
            with contextlib.closing(to_replica):
                ways = [
                    asyncio.create_task(_pass_on(reader, to_replica)),
                    asyncio.create_task(_pass_on(from_replica, writer)),
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()


async def _is_ready(port: int) -> bool:
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(writer):
                writer.write(ASK)
                return (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    except (OSError, TimeoutError):
        return False
