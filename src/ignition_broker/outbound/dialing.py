"""A new connection to a server: addresses, happy eyeballs (RFC 8305), an egress proxy, TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from functools import partial
from typing import Any

from aiohappyeyeballs import start_connection

from ignition_broker.outbound.address_guard import AddressGuard, AddressRefused
from ignition_broker.outbound.egress import Egress
from ignition_broker.outbound.errors import EgressProxyFailed
from ignition_broker.outbound.tunnel import open_tunnel
from ignition_broker.system_errors import shortage_or_name

# Before the next address is tried beside the first (RFC 8305 section 5).
NEXT_ADDRESS_SECONDS = 0.25
# For how long a name's addresses are believed: there may be a thousand connections a second.
ADDRESSES_SECONDS = 1.0


class Dialer:
    """To one server, directly or through the egress proxy that `Egress` names for it."""

    def __init__(self, host: str, port: int, *, is_tls: bool, egress: Egress) -> None:
        self._host = host
        self._port = port
        self._is_tls = is_tls
        self._egress = egress
        self.proxy = egress.proxies.leading_to("https" if is_tls else "http", host, port)
        self._addresses: Sequence[Any] = ()
        self._addresses_until = 0.0

    @property
    def way(self) -> str:
        """Ends the sentence of an error: which proxy leads there, if one does."""
        return "" if self.proxy is None else f" through the egress proxy at {self.proxy.name}"

    async def dial(self, protocol: asyncio.Protocol) -> None:
        """Raises `OSError`, or `EgressProxyFailed`."""
        loop = asyncio.get_running_loop()
        line = await self._connected()
        try:
            if self.proxy is not None and self._is_tls:
                await open_tunnel(line, self.proxy, self._host, self._port)
            await loop.create_connection(
                lambda: protocol,
                sock=line,
                ssl=self._egress.tls("http/1.1") if self._is_tls else None,
                server_hostname=self._host if self._is_tls else None,
            )
        except BaseException:
            line.close()
            raise

    async def _connected(self) -> socket.socket:
        """To the server, or to the proxy."""
        if self.proxy is None:
            return await self._connected_to(self._host, self._port, is_server=True)
        if self._egress.guard is not None:
            await self._check_behind_proxy(self._egress.guard)
        try:
            return await self._connected_to(self.proxy.host, self.proxy.port)
        except OSError as error:
            text = f"The egress proxy at {self.proxy.name} can't be reached: {reason(error)}."
            raise EgressProxyFailed(text) from error

    async def _connected_to(
        self, host: str, port: int, *, is_server: bool = False
    ) -> socket.socket:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._addresses_until:
            if is_server and self._egress.guard is not None:
                found = await self._looked_up()
                self._egress.guard.check(host, found, is_tls=self._is_tls)
            else:
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self._addresses = found
            self._addresses_until = loop.time() + ADDRESSES_SECONDS
        return await start_connection(self._addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS)

    async def _check_behind_proxy(self, guard: AddressGuard) -> None:
        """The proxy resolves the name, so what it finds can't be judged here. What this machine
        finds can, where it finds anything."""
        guard.check_literal(self._host, is_tls=self._is_tls)
        try:
            found = await self._looked_up()
        except OSError:
            return
        guard.check(self._host, found, is_tls=self._is_tls)

    async def _looked_up(self) -> Sequence[Any]:
        look_up = partial(socket.getaddrinfo, self._host, self._port, type=socket.SOCK_STREAM)
        return await asyncio.get_running_loop().run_in_executor(self._egress.lookups, look_up)


def reason(error: OSError) -> str:
    """Why there is no connection, in words."""
    match error:
        case AddressRefused():
            return str(error)
        case ssl.SSLCertVerificationError():
            return f"its certificate proves nothing ({error.verify_message})"
        case socket.gaierror():
            return "its name leads to no address"
        case _:
            return shortage_or_name(error)
