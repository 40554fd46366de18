"""How httpcore's pool connects to an API that is to be spoken to over HTTP/2 alone: through an
egress proxy where one leads there, and only where the server chooses HTTP/2."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable

import httpcore

from ignition_broker.outbound.egress_proxies import EgressProxy
from ignition_broker.outbound.errors import EgressProxyFailed
from ignition_broker.outbound.tunnel import connect_request, is_tunnel_open
from ignition_broker.system_errors import shortage_or_name


class ChoseHttp1(Exception):
    """The server's choice among the protocols offered."""


class Http2Alone(httpcore.AnyIOBackend):
    """httpcore's own proxy would speak HTTP/1.1 to a server that chooses it, on connections that
    tenants share."""

    def __init__(self, proxy: EgressProxy | None) -> None:
        self._proxy = proxy

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        proxy = self._proxy
        if proxy is None:
            line = await super().connect_tcp(host, port, timeout, local_address, socket_options)
            return _BeforeTls(line)
        try:
            line = await super().connect_tcp(
                proxy.host, proxy.port, timeout, local_address, socket_options
            )
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            reason = shortage_or_name(error)
            text = f"The egress proxy at {proxy.name} can't be reached: {reason}."
            raise EgressProxyFailed(text) from error
        try:
            await _open_tunnel(line, proxy, host, port, timeout)
        except BaseException:
            await line.aclose()
            raise
        return _BeforeTls(line)


async def _open_tunnel(
    line: httpcore.AsyncNetworkStream,
    proxy: EgressProxy,
    host: str,
    port: int,
    timeout: float | None,
) -> None:
    head = b""
    try:
        async with asyncio.timeout(timeout):
            await line.write(connect_request(proxy, host, port))
            while not is_tunnel_open(proxy, head):
                piece = await line.read(1 << 14)
                if not piece:
                    raise EgressProxyFailed(
                        f"The egress proxy at {proxy.name} closed the connection."
                    )
                head += piece
    except (httpcore.NetworkError, TimeoutError) as error:
        reason = shortage_or_name(error)
        text = f"The egress proxy at {proxy.name} made no tunnel: {reason}."
        raise EgressProxyFailed(text) from error


class _BeforeTls(httpcore.AsyncNetworkStream):
    def __init__(self, line: httpcore.AsyncNetworkStream) -> None:
        self._line = line

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        line = await self._line.start_tls(ssl_context, server_hostname, timeout)
        if line.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            await line.aclose()
            raise ChoseHttp1
        return line

    async def aclose(self) -> None:
        await self._line.aclose()
