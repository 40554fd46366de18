"""Access tokens in memory: bounded, and trusted only while the change feed works."""

from __future__ import annotations

from ignition_broker.broker.change_feed import ChangeFeed, ChangeFeedCache, ReadMark
from ignition_broker.model import IssuedToken

CAPACITY = 200_000
"""Tenants, not bytes."""


class TokenCache:
    """Maps a tenant to its newest known token."""

    def __init__(self, change_feed: ChangeFeed, capacity: int = CAPACITY) -> None:
        self._tokens: ChangeFeedCache[str, IssuedToken] = ChangeFeedCache(change_feed, capacity)
        # The cache's own methods, without a call in between: `get` is on the hot path.
        self.get = self._tokens.get
        self.get_stale = self._tokens.get_stale
        self.mark = self._tokens.mark
        self.was_dropped = self._tokens.was_dropped

    def __len__(self) -> int:
        return len(self._tokens)

    def put(self, token: IssuedToken, mark: ReadMark) -> None:
        """Keeps the token unless a newer version is held or its tenant was dropped since ``mark``.

        Versions are compared only within one epoch of the change feed: after the feed broke, the
        database may have gone back, and then what it says now is what counts.
        """
        held = self._tokens.get_of_epoch(token.tenant, mark.epoch)
        if held is None or held.version <= token.version:
            self._tokens.put(token.tenant, token, mark)

    def replace(self, token: IssuedToken, mark: ReadMark) -> None:
        """As `put`, even over a newer version: the row is known to have gone back."""
        self._tokens.put(token.tenant, token, mark)

    def forget(self, tenant: str) -> None:
        """The tenant has no token that may be served."""
        self._tokens.drop(tenant)

    def drop_older(self, tenant: str, version: int) -> None:
        """The tenant's row has changed and is at ``version`` now: an older token is forgotten."""
        held = self._tokens.get_stale(tenant)
        if held is not None and held.version < version:
            self._tokens.drop(tenant)
        else:
            self._tokens.reject_reads(tenant)
