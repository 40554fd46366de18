"""Access tokens in memory: bounded, and believed only while this process hears of changes."""

from __future__ import annotations

from ignition_broker.broker.change_feed import HeardValues, Hearing, Mark
from ignition_broker.model import IssuedToken

CAPACITY = 200_000


class TokenCache:
    """Tenant to token; a newer version is not given up for an older one."""

    def __init__(self, hearing: Hearing, capacity: int = CAPACITY) -> None:
        self._tokens: HeardValues[str, IssuedToken] = HeardValues(hearing, capacity)
        self.get = self._tokens.get
        self.get_unheard = self._tokens.get_unheard
        self.mark = self._tokens.mark
        self.was_dropped = self._tokens.was_dropped

    def __len__(self) -> int:
        return len(self._tokens)

    def put(self, token: IssuedToken, mark: Mark) -> None:
        """Versions are compared within one epoch of the change feed alone: after a break of it the
        database may have gone back, and what it says then is what counts."""
        held = self._tokens.get_of_epoch(token.tenant, mark.epoch)
        if held is None or held.version <= token.version:
            self._tokens.put(token.tenant, token, mark)

    def replace(self, token: IssuedToken, mark: Mark) -> None:
        """Whatever version was held before: the row is known to have gone back."""
        self._tokens.put(token.tenant, token, mark)

    def forget(self, tenant: str) -> None:
        """The tenant has no token that may be served."""
        self._tokens.drop(tenant)

    def heard(self, tenant: str, version: int) -> None:
        """The tenant's tokens are of ``version`` by now."""
        held = self._tokens.get_unheard(tenant)
        if held is not None and held.version < version:
            self._tokens.drop(tenant)
        else:
            self._tokens.distrust(tenant)
