"""Kept connections between two requests, each for the tenant that used it last and no other.

HTTP/1.1 tells answers apart by their order alone. Whatever a server leaves on a connection is taken
for the answer to the next request on it, so that request must be the same tenant's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ignition_broker.outbound.http1_connection import Connection


class IdleConnections:
    """``per_tenant``: how many one tenant may have; its oldest is closed for a further one.

    `put` and `take` belong to every request and cost one look-up each. The others look at all
    tenants, which have no more idle connections than the pool has places.
    """

    def __init__(self, per_tenant: int) -> None:
        self._per_tenant = per_tenant
        # The longest idle first. Emptied lists are dropped by `close`.
        self._of: dict[str, list[Connection]] = {}

    def put(self, connection: Connection, tenant: str) -> None:
        own = self._of.get(tenant)
        if own is None:
            self._of[tenant] = [connection]
            return
        if len(own) >= self._per_tenant:
            own.pop(0).discard()
        own.append(connection)

    def take(self, tenant: str, idle_since: float) -> Connection | None:
        """The tenant's newest that is fit for use and became idle after ``idle_since``."""
        own = self._of.get(tenant)
        while own:
            connection = own.pop()
            if connection.free_since > idle_since and connection.is_fit():
                return connection
            connection.discard()
        return None

    def take_oldest(self) -> Connection | None:
        """The one that has been idle for longest, whichever tenant's it is."""
        lists = [own for own in self._of.values() if own]
        if not lists:
            return None
        return min(lists, key=lambda own: own[0].free_since).pop(0)

    def remove(self, connection: Connection) -> None:
        """Forgets one; it may have been taken before."""
        own = self._of.get(connection.tenant or "")
        if own is not None and connection in own:
            own.remove(connection)

    def close(self, *, idle_since: float) -> None:
        """Closes those that became idle before ``idle_since``."""
        for tenant, own in list(self._of.items()):
            while own and own[0].free_since < idle_since:
                own.pop(0).discard()
            if not own:
                del self._of[tenant]
