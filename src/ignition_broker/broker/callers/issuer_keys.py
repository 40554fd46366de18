"""The public keys of one issuer of JWTs: fetched, held, and fetched again."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import structlog

from ignition_broker.broker.callers.json_web_keys import NoKeySet, PublicKey, pick_key, usable_keys
from ignition_broker.broker.callers.workload_issuers import TrustedIssuer, is_safe_url
from ignition_broker.broker.errors import Unauthenticated, Unavailable
from ignition_broker.clock import Clock
from ignition_broker.json_reading import read_json
from ignition_broker.outbound.tls import client_context
from ignition_broker.system_errors import shortage_or_name

LIFETIME_SECONDS: Final = 300.0
"""For how long keys are believed without a look whether one was withdrawn."""
PAUSE_SECONDS: Final = 10.0
"""From one fetch to the next, however many tokens name a key that is not there."""
STALE_SECONDS: Final = 86_400.0
"""For how long keys are believed while the issuer can't be asked."""
PATIENCE_SECONDS: Final = 1.0
TIMEOUT_SECONDS: Final = 5.0
LARGEST_DOCUMENT_BYTES: Final = 256 * 1024

log = structlog.get_logger(__name__)


class FetchFailed(Exception):
    """Says why, for the log."""


class IssuerKeys:
    """``version`` changes with the keys, so that what was verified with others counts no more."""

    def __init__(self, issuer: TrustedIssuer, clock: Clock) -> None:
        self._issuer = issuer
        self._monotonic = clock.monotonic
        self._keys: tuple[PublicKey, ...] | None = None
        self._document: object = None
        self._fetched_at = 0.0
        self._tried_at: float | None = None
        self._has_failed = False
        self._fetching: asyncio.Task[None] | None = None
        self.version = 0

    @property
    def good_for_seconds(self) -> float:
        """How long a verdict holds that was reached with what is held now."""
        return max(self._fetched_at + LIFETIME_SECONDS - self._monotonic(), PAUSE_SECONDS)

    async def find(self, kid: str | None, algorithm: str) -> PublicKey:
        """The key of that id that is meant for signatures by ``algorithm``; without an id, the
        only one. Raises `Unauthenticated` where there is none, `Unavailable` where nobody can
        tell."""
        if self._keys is None or self._age() > LIFETIME_SECONDS:
            # A slow issuer holds nobody up for long while there are keys to go by.
            await self._fetch(None if self._keys is None else PATIENCE_SECONDS)
        key = self._pick(kid, algorithm)
        if key is None:
            await self._fetch(None)
            key = self._pick(kid, algorithm)
        if key is not None and self._age() <= STALE_SECONDS:
            return key
        if self._has_failed:
            raise Unavailable(
                f"The keys of {self._issuer.label} can't be fetched just now, so this JWT can't be "
                "checked.",
                retry_after_seconds=PAUSE_SECONDS,
            )
        raise Unauthenticated("This JWT was refused: its issuer has no such key for signatures.")

    def _age(self) -> float:
        return self._monotonic() - self._fetched_at

    def _pick(self, kid: str | None, algorithm: str) -> PublicKey | None:
        return pick_key(self._keys or (), kid, algorithm)

    async def _fetch(self, patience_seconds: float | None) -> None:
        """One at a time, and none soon after another; whoever waits may leave."""
        if self._fetching is None:
            now = self._monotonic()
            if self._tried_at is not None and now - self._tried_at < PAUSE_SECONDS:
                return
            self._tried_at = now
            self._fetching = asyncio.create_task(self._renew())
        await asyncio.wait({self._fetching}, timeout=patience_seconds)

    async def _renew(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                document = await self._read_document()
            keys = usable_keys(document)
        except (
            *(FetchFailed, NoKeySet, httpx.HTTPError, httpx.InvalidURL),
            *(OSError, TimeoutError),
        ) as error:
            self._has_failed = True
            is_ours = isinstance(error, FetchFailed | NoKeySet)
            reason = str(error) if is_ours else shortage_or_name(error)
            log.warning("issuer_keys_failed", issuer=self._issuer.issuer, reason=reason)
        else:
            self._has_failed = False
            self._fetched_at = self._monotonic()
            if document != self._document:
                self._keys, self._document = keys, document
                self.version += 1
                log.info("issuer_keys_changed", issuer=self._issuer.issuer, keys=len(keys))
        finally:
            self._fetching = None

    async def _read_document(self) -> object:
        issuer = self._issuer
        context = await asyncio.to_thread(_tls, issuer.ca_file)
        async with httpx.AsyncClient(
            verify=context, timeout=TIMEOUT_SECONDS, trust_env=False, follow_redirects=False
        ) as http:
            url = issuer.jwks_url
            if url is None:
                configuration = await self._get(http, f"{issuer.issuer.rstrip('/')}{DISCOVERY}")
                url = jwks_url_of(configuration, issuer.issuer)
            return await self._get(http, url)

    async def _get(self, http: httpx.AsyncClient, url: str) -> object:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._issuer.token_file and _origin(url) in self._own_origins():
            # Read each time: Kubernetes replaces such a file before its token ends.
            token = await asyncio.to_thread(Path(self._issuer.token_file).read_text)
            headers["Authorization"] = f"Bearer {token.strip()}"
        body = b""
        async with http.stream("GET", url, headers=headers) as answer:
            if answer.status_code != 200:
                raise FetchFailed(f"status {answer.status_code} from {urlsplit(url).path}")
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > LARGEST_DOCUMENT_BYTES:
                    raise FetchFailed(f"more than {LARGEST_DOCUMENT_BYTES} bytes")
        try:
            return read_json(body)
        except ValueError:
            raise FetchFailed(f"no JSON from {urlsplit(url).path}") from None

    def _own_origins(self) -> set[tuple[str, str]]:
        """Where the operator said; what a discovery document names gets no token."""
        return {_origin(url) for url in (self._issuer.issuer, self._issuer.jwks_url) if url}


DISCOVERY: Final = "/.well-known/openid-configuration"


def jwks_url_of(configuration: object, issuer: str) -> str:
    """OpenID Connect Discovery 1.0 section 4.3. Raises `FetchFailed`."""
    if not isinstance(configuration, dict) or configuration.get("issuer") != issuer:
        raise FetchFailed("the discovery document is of another issuer")
    url = configuration.get("jwks_uri")
    if not isinstance(url, str) or not is_safe_url(url):
        raise FetchFailed("the discovery document's jwks_uri is no https URL")
    return url


def _tls(ca_file: str | None) -> ssl.SSLContext:
    return client_context("http/1.1", authorities=ca_file)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
