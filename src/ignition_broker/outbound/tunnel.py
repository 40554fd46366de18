"""A tunnel through an egress proxy: CONNECT (RFC 9110 section 9.3.6)."""

from __future__ import annotations

import asyncio
import re
import socket

from ignition_broker.outbound.egress_proxies import EgressProxy, authority
from ignition_broker.outbound.errors import EgressProxyFailed

_LARGEST_HEAD_BYTES = 1 << 16
_HEAD_END = b"\r\n\r\n"
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r\n")
AUTHENTICATION_REQUIRED = 407


async def open_tunnel(line: socket.socket, proxy: EgressProxy, host: str, port: int) -> None:
    """Asks ``proxy``, to which ``line`` is connected, for a tunnel to ``host``. Afterwards the
    bytes on ``line`` are the server's.

    Raises `EgressProxyFailed`, or `OSError` where the connection breaks.
    """
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(line, connect_request(proxy, host, port))
    head = b""
    while not is_tunnel_open(proxy, head):
        piece = await loop.sock_recv(line, 1 << 14)
        if not piece:
            raise EgressProxyFailed(
                f"The egress proxy at {proxy.name} closed the connection without an answer."
            )
        head += piece


def connect_request(proxy: EgressProxy, host: str, port: int) -> bytes:
    target = authority(host, port).encode("idna")
    credentials = proxy_authorization(proxy)
    return b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (target, target, credentials)


def proxy_authorization(proxy: EgressProxy) -> bytes:
    """The header's line, or nothing."""
    if proxy.authorization is None:
        return b""
    return b"Proxy-Authorization: %b\r\n" % proxy.authorization


def is_tunnel_open(proxy: EgressProxy, received: bytes) -> bool:
    """Whether ``received``, all that the proxy has sent, says so; False: more is to come.

    Raises `EgressProxyFailed` for every answer but a 2xx. The server speaks after the client, so
    that bytes behind the answer's head are the proxy's, and not taken for the server's.
    """
    head, end, rest = received.partition(_HEAD_END)
    if not end:
        if len(received) > _LARGEST_HEAD_BYTES:
            raise EgressProxyFailed(f"The egress proxy at {proxy.name} sent too large a head.")
        return False
    status_line = _STATUS_LINE.match(head + b"\r\n")
    if status_line is None:
        raise EgressProxyFailed(f"The egress proxy at {proxy.name} does not speak HTTP.")
    status = int(status_line[1])
    if 100 <= status < 200:
        return is_tunnel_open(proxy, rest)
    if not 200 <= status < 300:
        raise refusal(proxy, status)
    if rest:
        raise EgressProxyFailed(f"The egress proxy at {proxy.name} sent more than its answer.")
    return True


def refusal(proxy: EgressProxy, status: int) -> EgressProxyFailed:
    """What the proxy's ``status`` means to an operator."""
    told = f"The egress proxy at {proxy.name} answered {status}"
    if status != AUTHENTICATION_REQUIRED:
        return EgressProxyFailed(f"{told}.")
    has_credentials = proxy.authorization is not None
    asks = "it refuses the credentials" if has_credentials else "it asks for credentials"
    return EgressProxyFailed(f"{told}: {asks}.")
