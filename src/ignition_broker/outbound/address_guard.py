"""Which addresses an admin's URL may lead to: none that lies inside (server-side request forgery).

The guard judges the addresses that a name was resolved to, and the connection is then made to those
very addresses: to look a name up a second time could bring others. So decimal and octal forms of an
address need no reading of their own: the resolver has read them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# What IANA's registries of special addresses list, and one cloud's address for metadata. Written
# out, because what `ipaddress` says of them differs between releases of Python.
_REFUSED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(each)
    for each in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        # Of IPv6, only 2000::/3 is given out; these are the parts that begin otherwise.
        "::/3",
        "4000::/2",
        "8000::/1",
        # Teredo and other special purposes, documentation, 6to4, documentation again, segment
        # routing.
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_NAT64 = IPv6Network("64:ff9b::/96")


class AddressRefused(OSError):
    """The text says which address, and how to allow it."""


@dataclass(frozen=True, slots=True)
class AddressGuard:
    """Lets connections lead to public addresses by TLS, and to what is allowed.

    Args:
        networks: whose addresses may be reached although they are not public, and without TLS.
        hosts: names and addresses as they are written in URLs, whose addresses are not judged.
    """

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, allowed: str) -> AddressGuard:
        """From networks, addresses and hosts with commas between them. Raises `ValueError`."""
        networks: list[Network] = []
        hosts: set[str] = set()
        for part in filter(None, (each.strip() for each in allowed.split(","))):
            try:
                networks.append(ipaddress.ip_network(part))
            except ValueError:
                hosts.add(_host_name(part))
        return cls(tuple(networks), frozenset(hosts))

    def allows_host(self, host: str) -> bool:
        """Whether the host is allowed by its name, or is an address of an allowed network."""
        if host.lower().rstrip(".") in self.hosts:
            return True
        address = as_address(host)
        return address is not None and self._is_allowed(address)

    def may_allow_plain(self, host: str) -> bool:
        """Whether a URL without TLS may be stored: its host is allowed, or is a name that may lead
        to an allowed network."""
        return self.allows_host(host) or (bool(self.networks) and as_address(host) is None)

    def check(self, host: str, found: Sequence[Any], *, is_tls: bool) -> None:
        """Raises `AddressRefused` unless every address may be reached.

        Args:
            host: as the URL has it.
            found: what `socket.getaddrinfo` found for it.
        """
        if self.allows_host(host):
            return
        for entry in found:
            address = as_address(entry[4][0])
            if address is not None and self._is_allowed(address):
                continue
            if address is None or not is_public(address):
                raise AddressRefused(
                    "its address is not a public one; BROKER_WEBHOOK_ALLOW can allow it"
                )
            if not is_tls:
                raise AddressRefused(
                    "its URL must be https; BROKER_WEBHOOK_ALLOW can allow its host without"
                )

    def check_literal(self, host: str, *, is_tls: bool) -> None:
        """The same for a host that is an address, before anything is resolved."""
        address = as_address(host)
        if address is not None:
            self.check(host, [(None, None, None, None, (str(address), 0))], is_tls=is_tls)

    def _is_allowed(self, address: Address) -> bool:
        return any(
            form.version == network.version and form in network
            for form in (address, unmapped(address))
            for network in self.networks
        )


def is_public(address: Address) -> bool:
    """Whether the address belongs to a server on the internet, whatever its form."""
    inner = unmapped(address)
    return not any(inner.version == each.version and inner in each for each in _REFUSED)


def unmapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, by mapping (RFC 4291 section 2.5.5.2) or
    by NAT64 (RFC 6052); any other as it is."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def as_address(text: str) -> Address | None:
    """The address that is written there, without its scope; None for a name."""
    try:
        return ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _host_name(text: str) -> str:
    name = text.lower().rstrip(".")
    try:
        name = name.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError("must be hosts, addresses and networks, comma separated") from None
    # "10.0.0.1/8", which has bits set behind its prefix, is no network, and no host either.
    if not _HOST.fullmatch(name):
        raise ValueError("must be hosts, addresses and networks, comma separated")
    return name
