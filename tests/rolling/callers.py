"""Callers of a balancer: some open a connection for each call, some keep theirs, some read long
answers. Every call counts, and none is tried twice."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field

PATIENCE_SECONDS = 30.0
CALLS_A_CONNECTION = 20


@dataclass
class Callers:
    port: int
    key: str
    tenants: list[str]
    calls: int = 0
    streams: int = 0
    failures: list[str] = field(default_factory=list)

    async def run(self, until: asyncio.Event, *, short: int, kept: int, streaming: int) -> None:
        """So many of each, until ``until`` is set."""
        await asyncio.gather(
            *(self._call_on(until, 1) for _ in range(short)),
            *(self._call_on(until, CALLS_A_CONNECTION) for _ in range(kept)),
            *(self._stream(until) for _ in range(streaming)),
        )

    async def _call_on(self, until: asyncio.Event, calls: int) -> None:
        while not until.is_set():
            await self._connection(lambda: random.choice(("/token/{}", "/proxy/{}/me")), calls)

    async def _stream(self, until: asyncio.Event) -> None:
        while not until.is_set():
            await self._connection(lambda: "/proxy/{}/stream", 1)
            self.streams += 1

    async def _connection(self, path, calls: int) -> None:
        asked = ""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                with contextlib.closing(writer):
                    for _ in range(calls):
                        asked = path().format(random.choice(self.tenants))
                        is_last = await self._call(reader, writer, asked)
                        if is_last:
                            return
                        await asyncio.sleep(random.random() * 0.02)
        except (OSError, EOFError, TimeoutError, AssertionError) as error:
            self.failures.append(f"{asked}: {type(error).__name__} {error}")
            await asyncio.sleep(0.1)

    async def _call(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str
    ) -> bool:
        """Whether the connection takes no further call."""
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {self.key}\r\n\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = head.split(b" ", 2)[1]
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        assert status == b"200", f"{status!r} {body[:200]!r}"
        self.calls += 1
        return b"\r\nconnection: close" in head
