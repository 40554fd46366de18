"""Which egress proxy leads to a server: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`. Pure.

A host on loopback is never reached through a proxy, whatever the variables say: the proxy's
loopback is another machine.
"""

from __future__ import annotations

import ipaddress
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

_DEFAULT_PORT = 80


@dataclass(frozen=True, slots=True)
class EgressProxy:
    """``authorization``: the value of ``Proxy-Authorization``, or None."""

    host: str
    port: int
    authorization: bytes | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """For errors and logs; without the credentials."""
        return authority(self.host, self.port)


def parse_proxy(text: str) -> EgressProxy:
    """Reads ``http://user:password@host:port``; the scheme and the credentials may be missing.

    Raises `ValueError`, which never quotes ``text``: it may hold a password.
    """
    try:
        parts = urlsplit(with_scheme(text))
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except ValueError:
        raise ValueError("must be a URL such as http://proxy.example.com:3128") from None
    if parts.scheme != "http" or not host:
        raise ValueError("must be an http:// URL: the broker speaks plain HTTP to its egress proxy")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError("must have nothing behind its port; percent-encode the password")
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        # RFC 7617 section 2.
        authorization = b"Basic " + b64encode(pair.encode())
    return EgressProxy(host, _DEFAULT_PORT if port is None else port, authorization)


@dataclass(frozen=True, slots=True)
class EgressProxies:
    """``https`` and ``http``: for URLs of that scheme. ``exempt``: what ``NO_PROXY`` lists: hosts
    (which stand for their subdomains too), ``host:port``, addresses, networks, or ``*``."""

    https: EgressProxy | None = None
    http: EgressProxy | None = None
    exempt: tuple[str, ...] = ()

    @classmethod
    def of(cls, *, https: str | None, http: str | None, exempt: str) -> EgressProxies:
        """From the variables' values. Raises `ValueError`."""
        names = (name.strip().lower() for name in exempt.replace(",", " ").split())
        return cls(
            https=parse_proxy(https) if https else None,
            http=parse_proxy(http) if http else None,
            exempt=tuple(name for name in names if name),
        )

    def leading_to(self, scheme: str, host: str, port: int) -> EgressProxy | None:
        """None where the server is reached directly."""
        proxy = self.https if scheme == "https" else self.http
        if proxy is None or is_loopback(host) or self._exempts(host.lower(), port):
            return None
        return proxy

    def _exempts(self, host: str, port: int) -> bool:
        return any(_matches(entry, host, port) for entry in self.exempt)


def with_scheme(text: str) -> str:
    """As curl and urllib read ``proxy.example.com:3128``."""
    return text if "://" in text else f"http://{text}"


def authority(host: str, port: int) -> str:
    """``host:port``, an IPv6 address in brackets (RFC 3986 section 3.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """By the name alone: nothing is looked up."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    entry, _, entry_port = _split_port(entry.rpartition("://")[2])
    if entry_port and entry_port != str(port):
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        suffix = entry.removeprefix("*").lstrip(".")
        return bool(suffix) and (host == suffix or host.endswith(f".{suffix}"))
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _split_port(entry: str) -> tuple[str, str, str]:
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        return host, ":", rest.removeprefix(":")
    # Two colons and no brackets: an IPv6 address without a port.
    return (entry, "", "") if entry.count(":") > 1 else entry.partition(":")
