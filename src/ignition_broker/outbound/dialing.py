"""A new connection to a server: its addresses, happy eyeballs (RFC 8305), TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from aiohappyeyeballs import start_connection

from ignition_broker.outbound.tls import client_context
from ignition_broker.system_errors import shortage_or_name

# Before the next address is tried beside the first (RFC 8305 section 5).
NEXT_ADDRESS_SECONDS = 0.25
# For how long a name's addresses are believed: there may be a thousand connections a second.
ADDRESSES_SECONDS = 1.0


class Dialer:
    def __init__(self, host: str, port: int, *, is_tls: bool) -> None:
        self._host = host
        self._port = port
        self._is_tls = is_tls
        self._context: ssl.SSLContext | None = None
        self._addresses: Sequence[Any] = ()
        self._addresses_until = 0.0

    async def dial(self, protocol: asyncio.Protocol) -> None:
        """Raises `OSError`."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._addresses_until:
            self._addresses = await loop.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM
            )
            self._addresses_until = loop.time() + ADDRESSES_SECONDS
        line = await start_connection(self._addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS)
        try:
            await loop.create_connection(
                lambda: protocol,
                sock=line,
                ssl=self._tls(),
                server_hostname=self._host if self._is_tls else None,
            )
        except BaseException:
            line.close()
            raise

    def _tls(self) -> ssl.SSLContext | None:
        if self._is_tls and self._context is None:
            self._context = client_context("http/1.1")
        return self._context


def reason(error: OSError) -> str:
    """Why there is no connection, in words."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate proves nothing ({error.verify_message})"
        case socket.gaierror():
            return "its name leads to no address"
        case _:
            return shortage_or_name(error)
