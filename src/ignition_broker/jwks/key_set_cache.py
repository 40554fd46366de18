"""The public keys of one issuer: fetched, held, and fetched again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from ignition_broker.clock import Clock
from ignition_broker.jwks.discovery import FetchFailed
from ignition_broker.jwks.public_keys import PublicKey
from ignition_broker.system_errors import shortage_or_name

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class KeyTimes:
    """``lifetime_seconds``: for how long keys are trusted without a look whether one was withdrawn.
    ``stale_seconds``: for how long while the issuer can't be asked. ``pause_seconds``: from one
    fetch to the next, however many tokens name a key that is not there. ``patience_seconds``: for
    how long a fetch holds callers up where there are keys to go by."""

    lifetime_seconds: float
    stale_seconds: float
    pause_seconds: float
    patience_seconds: float | None


class KeySetCache:
    """``fetch`` returns the issuer's JWK set, or raises `FetchFailed`; ``parse`` returns the keys
    in it, or raises `ValueError`.

    ``version`` changes with the keys, so that what was verified with others counts no more.
    ``failure`` says why the last fetch failed; None where it did not.
    """

    def __init__(
        self,
        issuer: str,
        fetch: Callable[[], Awaitable[bytes]],
        parse: Callable[[bytes], tuple[PublicKey, ...]],
        clock: Clock,
        times: KeyTimes,
    ) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._parse = parse
        self._monotonic = clock.monotonic
        self._times = times
        self._keys: tuple[PublicKey, ...] | None = None
        self._document = b""
        self._fetched_at = 0.0
        self._tried_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None
        self.failure: str | None = None
        self.version = 0

    @property
    def good_for_seconds(self) -> float:
        """How long a verdict holds that was reached with what is held now."""
        left = self._fetched_at + self._times.lifetime_seconds - self._monotonic()
        return max(left, self._times.pause_seconds)

    @property
    def held(self) -> tuple[PublicKey, ...] | None:
        """The keys that may be gone by now; None where there are none, or only too old ones."""
        if self._keys is None or self._age() > self._times.stale_seconds:
            return None
        return self._keys

    async def freshen(self) -> None:
        """Fetches the keys where none are held, or those that are have lived their lifetime."""
        if self._keys is None or self._age() > self._times.lifetime_seconds:
            await self._renew(None if self._keys is None else self._times.patience_seconds)

    async def renew(self) -> None:
        """Fetches them past what is held, for a key that is not among them; but not within
        ``pause_seconds`` of the last fetch."""
        await self._renew(None)

    def _age(self) -> float:
        return self._monotonic() - self._fetched_at

    async def _renew(self, patience_seconds: float | None) -> None:
        """One at a time; whoever waits may leave."""
        if self._fetching is None:
            now = self._monotonic()
            if self._tried_at is not None and now - self._tried_at < self._times.pause_seconds:
                return
            self._tried_at = now
            self._fetching = asyncio.create_task(self._fetch_once())
        await asyncio.wait({self._fetching}, timeout=patience_seconds)

    async def _fetch_once(self) -> None:
        try:
            document = await self._fetch()
            keys = self._parse(document)
        except (FetchFailed, ValueError, OSError) as error:
            self.failure = _told(error)
            log.warning("issuer_keys_failed", issuer=self._issuer, reason=self.failure)
        else:
            self.failure = None
            self._fetched_at = self._monotonic()
            if document != self._document:
                self._keys, self._document = keys, document
                self.version += 1
                log.info("issuer_keys_changed", issuer=self._issuer, keys=len(keys))
        finally:
            self._fetching = None


def _told(error: Exception) -> str:
    match error:
        case FetchFailed():
            return str(error)
        case OSError():
            return f"A file can't be read ({shortage_or_name(error)})."
        case _:
            return "What its issuer sent is no JWK set."
