"""Ends TLS in front of a server of a test's."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading

from tests.service.egress_proxy import pump


class TlsFront:
    """On a port of its own, shows the certificate in ``context`` and passes the bytes on to
    ``port`` of this machine."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        self._context = context
        self._behind = port
        started = threading.Event()
        self._loop = asyncio.new_event_loop()

        async def run() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            async with server:
                await server.serve_forever()

        def work() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._task)
            self._loop.close()

        self._task = self._loop.create_task(run())
        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()
        assert started.wait(5)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self._behind)
        except OSError:
            writer.close()
            return
        ways = [pump(reader, there[1]), pump(there[0], writer)]
        await asyncio.gather(*ways, return_exceptions=True)
