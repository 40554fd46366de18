"""Kept connections between two requests, each for the tenant that used it last and no other.

HTTP/1.1 tells answers apart by their order alone. Whatever a server leaves on a connection is taken
for the answer to the next request on it, so that request must be the same tenant's.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ignition_broker.outbound.connection import Connection


class IdleConnections:
    """``per_tenant``: how many one tenant may have; its oldest is closed for a further one."""

    def __init__(self, per_tenant: int) -> None:
        self._per_tenant = per_tenant
        # All, the longest idle first; and by tenant, in the same order.
        self._all: dict[Connection, None] = {}
        self._of: dict[str, deque[Connection]] = {}

    def put(self, connection: Connection, tenant: str) -> None:
        own = self._of.get(tenant)
        if own is None:
            own = self._of[tenant] = deque()
        elif len(own) >= self._per_tenant:
            oldest = own.popleft()
            del self._all[oldest]
            oldest.discard()
        own.append(connection)
        self._all[connection] = None

    def take(self, tenant: str, *, idle_since: float) -> Connection | None:
        """The tenant's newest that is fit for use and became idle after ``idle_since``."""
        own = self._of.get(tenant)
        while own:
            connection = own.pop()
            del self._all[connection]
            if not own:
                del self._of[tenant]
            if connection.free_since > idle_since and connection.is_fit():
                return connection
            connection.discard()
        return None

    def take_oldest(self) -> Connection | None:
        """The one that has been idle for longest, whichever tenant's it is."""
        for connection in self._all:
            self.remove(connection)
            return connection
        return None

    def remove(self, connection: Connection) -> None:
        """Forgets one; it may have been taken before."""
        tenant = connection.tenant
        if tenant is not None and connection in self._all:
            del self._all[connection]
            self._of[tenant].remove(connection)
            if not self._of[tenant]:
                del self._of[tenant]

    def close(self, *, idle_since: float) -> None:
        """Closes those that became idle before ``idle_since``."""
        while (oldest := next(iter(self._all), None)) and oldest.free_since < idle_since:
            self.remove(oldest)
            oldest.discard()
