"""The public keys of a trusted issuer of workloads' JWTs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import httpx

from ignition_broker.broker.callers.workload_issuers import TrustedIssuer
from ignition_broker.broker.errors import Unauthenticated, Unavailable
from ignition_broker.clock import Clock
from ignition_broker.jwks.discovery import (
    fetch,
    jwks_url_of,
    metadata_url,
    origin_of,
    parsed_metadata,
)
from ignition_broker.jwks.key_set_cache import KeySetCache, KeyTimes
from ignition_broker.jwks.public_keys import PublicKey, parse_key_set, pick_key
from ignition_broker.outbound.client import ClientLimits, PoolTransport, http_client
from ignition_broker.outbound.egress import Egress

LIFETIME_SECONDS: Final = 300.0
PAUSE_SECONDS: Final = 10.0
STALE_SECONDS: Final = 86_400.0
PATIENCE_SECONDS: Final = 1.0
TIMEOUT_SECONDS: Final = 5.0
CONNECTIONS: Final = 10
_TIMES: Final = KeyTimes(LIFETIME_SECONDS, STALE_SECONDS, PAUSE_SECONDS, PATIENCE_SECONDS)


class WorkloadKeys:
    """Fetched through ``egress``; of an issuer with a ``ca_file``, trusting that file alone."""

    def __init__(self, issuer: TrustedIssuer, clock: Clock, egress: Egress) -> None:
        self._issuer = issuer
        self._egress = egress
        self._cache = KeySetCache(issuer.issuer, self._read_key_set, parse_key_set, clock, _TIMES)

    @property
    def version(self) -> int:
        return self._cache.version

    @property
    def good_for_seconds(self) -> float:
        return self._cache.good_for_seconds

    async def find(self, kid: str | None, algorithm: str) -> PublicKey:
        """The key of that id that is meant for signatures by ``algorithm``; without an id, the
        only one. Raises `Unauthenticated` where there is none, `Unavailable` where nobody can
        tell."""
        await self._cache.freshen()
        if pick_key(self._cache.held or (), kid, algorithm) is None:
            await self._cache.renew()
        key = pick_key(self._cache.held or (), kid, algorithm)
        if key is not None:
            return key
        if self._cache.failure is not None:
            raise Unavailable(
                f"The keys of {self._issuer.label} can't be fetched just now, so this JWT can't be "
                "checked.",
                retry_after_seconds=PAUSE_SECONDS,
            )
        raise Unauthenticated("This JWT was refused: its issuer has no such key for signatures.")

    async def _read_key_set(self) -> bytes:
        transport = await asyncio.to_thread(self._transport)
        async with http_client(transport) as http:
            url = self._issuer.jwks_url
            if url is None:
                document = await self._read(http, metadata_url(self._issuer.issuer))
                url = jwks_url_of(parsed_metadata(document), self._issuer.issuer)
            return await self._read(http, url)

    def _transport(self) -> PoolTransport:
        """Made for each fetch, since a platform may replace ``ca_file``. In a thread: reading it
        blocks. Raises `OSError`."""
        egress = self._egress
        if self._issuer.ca_file is not None:
            egress = egress.trusting_only(self._issuer.ca_file)
        egress.tls("http/1.1")
        limits = ClientLimits(connections=CONNECTIONS, connect_timeout_seconds=TIMEOUT_SECONDS)
        return PoolTransport(limits, egress=egress, server=f"the issuer {self._issuer.label}")

    async def _read(self, http: httpx.AsyncClient, url: str) -> bytes:
        headers = {}
        if self._issuer.token_file and origin_of(url) in self._own_origins():
            # Read each time: Kubernetes replaces such a file before its token ends.
            token = await asyncio.to_thread(Path(self._issuer.token_file).read_text)
            headers["Authorization"] = f"Bearer {token.strip()}"
        return await fetch(http, url, timeout_seconds=TIMEOUT_SECONDS, headers=headers)

    def _own_origins(self) -> set[tuple[str, str]]:
        """Where the operator said; what a discovery document names gets no token."""
        return {origin_of(url) for url in (self._issuer.issuer, self._issuer.jwks_url) if url}
