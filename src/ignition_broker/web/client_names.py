"""Which OAuth client a request is for, and so which grant of its tenant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ignition_broker.broker.errors import UnknownClient
from ignition_broker.grant_ids import DEFAULT_CLIENT, grant_id

PARAMETER: Final = "client"
"""The query parameter that names the client. The proxy's queries are the API's, and have none of
ours: there, and everywhere else, the path may begin with ``/c/{client}`` (`web.client_routes`)."""


class ClientNames:
    """The clients that are set, `DEFAULT_CLIENT` first."""

    def __init__(self, names: Iterable[str]) -> None:
        self.all = tuple(names)

    def grant(self, tenant: str, query: Mapping[str, str]) -> str:
        """The id of the tenant's grant at the client that the query names, or at the default one.

        The tenant's id must have been checked. Raises `UnknownClient`.
        """
        return self.grant_at(tenant, query.get(PARAMETER, DEFAULT_CLIENT))

    def grant_at(self, tenant: str, client: str) -> str:
        """The same for the client of that name. Raises `UnknownClient`."""
        return grant_id(tenant, self.checked(client))

    def checked(self, client: str) -> str:
        """``client``, if it is the name of one. Raises `UnknownClient`."""
        if client not in self.all:
            raise UnknownClient(client)
        return client


ONLY_DEFAULT: Final = ClientNames([DEFAULT_CLIENT])
