"""Access tokens in memory: bounded, and believed only while this process hears of changes."""

from __future__ import annotations

from collections import OrderedDict

from ignition_broker.model import IssuedToken

DROPS_REMEMBERED = 10_000


class TokenCache:
    """Tenant to token, least recently used out first.

    While deaf (no LISTEN connection) nothing is found by `get`; what is held is still there for
    `get_unheard`, for the case that Postgres is away as well.
    """

    def __init__(self, capacity: int = 200_000) -> None:
        self._capacity = capacity
        self._tokens: OrderedDict[str, IssuedToken] = OrderedDict()
        self._is_hearing = False
        self._now = 0
        self._dropped_at: OrderedDict[str, int] = OrderedDict()
        self._all_dropped_at = 0

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def is_hearing(self) -> bool:
        return self._is_hearing

    def get(self, tenant: str) -> IssuedToken | None:
        if not self._is_hearing:
            return None
        token = self._tokens.get(tenant)
        if token is not None:
            self._tokens.move_to_end(tenant)
        return token

    def get_unheard(self, tenant: str) -> IssuedToken | None:
        return self._tokens.get(tenant)

    def mark(self) -> int:
        """To be taken before a row is read, and handed to `put` with what was read."""
        return self._now

    def put(self, token: IssuedToken, mark: int) -> None:
        """Kept, unless a change was heard of since ``mark`` or a newer one is here."""
        if mark < self._dropped_at.get(token.tenant, self._all_dropped_at):
            return
        held = self._tokens.get(token.tenant)
        if held is not None and held.version > token.version:
            return
        self._tokens[token.tenant] = token
        self._tokens.move_to_end(token.tenant)
        if len(self._tokens) > self._capacity:
            self._tokens.popitem(last=False)

    def replace(self, token: IssuedToken) -> None:
        """What this process has just stored itself; kept unless a newer one is here."""
        self.put(token, self._now)

    def drop(self, tenant: str, *, version: int | None = None) -> None:
        """Forgets the tenant's token, or only one older than ``version``."""
        self._now += 1
        self._dropped_at[tenant] = self._now
        self._dropped_at.move_to_end(tenant)
        if len(self._dropped_at) > DROPS_REMEMBERED:
            _tenant, self._all_dropped_at = self._dropped_at.popitem(last=False)
        held = self._tokens.get(tenant)
        if held is not None and (version is None or held.version < version):
            del self._tokens[tenant]

    def hear(self) -> None:
        """Listening began: what was held may have changed unheard."""
        self._now += 1
        self._all_dropped_at = self._now
        self._dropped_at.clear()
        self._tokens.clear()
        self._is_hearing = True

    def lose_hearing(self) -> None:
        self._is_hearing = False
