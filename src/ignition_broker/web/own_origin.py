"""The origin at which browsers reach this service, and whether a request was sent to it.

Browsers keep cookies by host. A sign-in that begins on another host than the redirect URI's would
set its cookie there, and the callback, which comes to the redirect URI's host, would not see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from ignition_broker.server.http_protocol import PEER

MOVED: Final = "moved"
"""A query parameter of addresses that a browser was redirected to. Behind a reverse proxy that
rewrites the Host header every request seems to be for another host, so it is redirected only
once."""


class OwnOrigin:
    """``origin`` is scheme, host and port as browsers write them; ``trusted`` are the networks
    whose ``X-Forwarded-Host`` and ``X-Forwarded-Proto`` count."""

    def __init__(self, origin: str, trusted: Sequence[IPv4Network | IPv6Network]) -> None:
        self._origin = origin
        self._trusted = tuple(trusted)
        parts = urlsplit(origin)
        self._scheme = parts.scheme
        self._host = _host(parts.netloc)
        self._port = parts.port or _DEFAULT_PORTS[parts.scheme]

    def is_elsewhere(self, scope: Scope) -> bool:
        """Whether the browser asked another host, port or scheme than ours.

        A Host header without a port does not tell the port, since many proxies cut it off. Only a
        trusted proxy can tell the scheme.
        """
        headers: dict[bytes, bytes] = dict(scope["headers"])
        is_trusted = self._is_trusted(scope)
        asked = headers.get(b"host", b"")
        if is_trusted:
            asked = headers.get(b"x-forwarded-host", asked).partition(b",")[0].strip()
            if b"x-forwarded-proto" in headers and scope["scheme"] != self._scheme:
                return True
        if not asked:
            return False
        netloc = asked.decode("latin-1")
        try:
            port = urlsplit(f"//{netloc}").port
            return _host(netloc) != self._host or port not in {None, self._port}
        except ValueError:
            return True

    def redirect(self, path: str, query: str = "") -> Response:
        """A redirect to ``path`` at our own origin; ``query`` comes without its question mark."""
        query = f"{query}&{MOVED}=1" if query else f"{MOVED}=1"
        return RedirectResponse(f"{self._origin}{path}?{query}", 303, {"Cache-Control": "no-store"})

    def redirect_if_elsewhere(self, scope: Scope) -> Response | None:
        """A redirect to the same address at our own origin; None where it was asked for there."""
        query = scope["query_string"].decode("latin-1")
        if has_moved(query) or not self.is_elsewhere(scope):
            return None
        return self.redirect(scope["raw_path"].decode("latin-1"), query)

    def _is_trusted(self, scope: Scope) -> bool:
        peer = scope.get("state", {}).get(PEER)
        if not self._trusted or peer is None:
            return False
        try:
            address = ip_address(peer[0])
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


def has_moved(query: str) -> bool:
    """Whether the browser was redirected here."""
    return f"{MOVED}=1" in query.split("&")


_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def _host(netloc: str) -> str:
    """The host in lower case and ASCII, as browsers send it. Raises `ValueError` for a malformed
    one."""
    host = urlsplit(f"//{netloc}").hostname or ""
    return host if host.isascii() else host.encode("idna").decode("ascii")
