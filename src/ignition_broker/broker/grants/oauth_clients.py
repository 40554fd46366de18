"""The OAuth clients by which this broker is known at Ignition, and which of them a grant is of.

Each has a provider and a circuit breaker of its own: production's may be down, or refuse its
client, while the sandbox's works.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ignition_broker.broker.errors import UnknownClient
from ignition_broker.broker.grants.circuit_breaker import CircuitBreaker
from ignition_broker.broker.grants.identity_probe import Probe
from ignition_broker.broker.grants.provider import Provider
from ignition_broker.grant_ids import DEFAULT_CLIENT, client_of, tenant_of


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """``requested_scope``: what was granted where Ignition does not say. ``expected_issuer``: what
    ``iss`` on the callback must be (RFC 9207); None: it is not compared. ``probe``: asks whose
    account a token is for; None: its API can't be asked."""

    provider: Provider
    breaker: CircuitBreaker
    requested_scope: str = ""
    expected_issuer: str | None = None
    probe: Probe | None = None


class OAuthClients:
    """``by_name`` holds `DEFAULT_CLIENT` and any number of others.

    ``timeout_seconds``: how long callers wait for one request, ``patience_seconds``: how long it
    goes on; the same for all.
    """

    def __init__(self, by_name: Mapping[str, OAuthClient]) -> None:
        self._by_name = dict(by_name)
        default = self._by_name[DEFAULT_CLIENT].provider
        self.timeout_seconds = default.timeout_seconds
        self.patience_seconds = default.patience_seconds

    @property
    def names(self) -> list[str]:
        """`DEFAULT_CLIENT` first."""
        return sorted(self._by_name, key=lambda name: (name != DEFAULT_CLIENT, name))

    def named(self, name: str) -> OAuthClient:
        """Raises `UnknownClient`."""
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownClient(name) from None

    def can_revoke(self, grant: str) -> bool:
        """Whether the grant's tokens can be revoked at Ignition."""
        client = self._by_name.get(client_of(grant))
        return client is not None and client.provider.can_revoke

    def probe_of(self, grant: str) -> Probe | None:
        """Asks whose account the grant's tokens are for; None: that can't be asked."""
        client = self._by_name.get(client_of(grant))
        return None if client is None else client.probe

    @property
    def any_probe(self) -> bool:
        """Whether any client's API can be asked for accounts."""
        return any(client.probe is not None for client in self._by_name.values())

    def of(self, grant: str) -> OAuthClient:
        """The client that the grant is of. Raises `UnknownClient`, as for a grant of a client that
        is no longer set."""
        try:
            return self._by_name[client_of(grant)]
        except KeyError:
            raise UnknownClient(client_of(grant), tenant=tenant_of(grant)) from None
