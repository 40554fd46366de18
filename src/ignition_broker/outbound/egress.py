"""How the broker reaches other servers: whose certificates it trusts, through which proxies."""

from __future__ import annotations

import ssl
from concurrent.futures import ThreadPoolExecutor

from ignition_broker.outbound.address_guard import AddressGuard
from ignition_broker.outbound.egress_proxies import EgressProxies
from ignition_broker.outbound.tls import client_context

GUARDED_LOOKUPS = 4
"""Names of admins' URLs that are looked up at once, in threads of their own: a name server that
does not answer would otherwise hold up the look-up of Ignition's."""


class Egress:
    """One for all ways out, so that a server which one of them reaches is reached by all.

    Args:
        more_authorities: a PEM file of certificate authorities to trust beside the machine's.
        only_authorities: a PEM file of the only ones to trust.
        proxies: none unless given.
        guard: judges the addresses that names lead to; None: all may be reached.
    """

    def __init__(
        self,
        *,
        more_authorities: str | None = None,
        only_authorities: str | None = None,
        proxies: EgressProxies | None = None,
        guard: AddressGuard | None = None,
    ) -> None:
        self._more_authorities = more_authorities
        self._only_authorities = only_authorities
        self.proxies = proxies or EgressProxies()
        self.guard = guard
        self.lookups = None if guard is None else ThreadPoolExecutor(GUARDED_LOOKUPS)
        self._contexts: dict[tuple[str, ...], ssl.SSLContext] = {}

    def tls(self, *protocols: str) -> ssl.SSLContext:
        """The context for connections that offer ``protocols`` by ALPN (RFC 7301). Made once, since
        reading the authorities takes some 20 ms. Raises `OSError`."""
        context = self._contexts.get(protocols)
        if context is None:
            context = client_context(
                *protocols,
                authorities=self._only_authorities,
                more_authorities=self._more_authorities,
            )
            self._contexts[protocols] = context
        return context

    def trusting_only(self, authorities: str) -> Egress:
        """Through the same proxies, to servers of the authorities in that PEM file."""
        return Egress(only_authorities=authorities, proxies=self.proxies)

    def guarded(self, guard: AddressGuard) -> Egress:
        """The same way, to what ``guard`` lets through."""
        return Egress(
            more_authorities=self._more_authorities,
            only_authorities=self._only_authorities,
            proxies=self.proxies,
            guard=guard,
        )
