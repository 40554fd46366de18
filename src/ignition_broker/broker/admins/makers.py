"""What links and sign-ins are begun with: they end when it ends."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from ignition_broker.broker.admins.sessions import IDLE_SECONDS, LIFETIME_SECONDS
from ignition_broker.broker.callers.api_keys import BOOTSTRAP_ADMIN
from ignition_broker.cipher import Cipher
from ignition_broker.model import Caller
from ignition_broker.storage.makers import Maker, Standing

ANY_SETTINGS = Standing(None, None, (), LIFETIME_SECONDS, IDLE_SECONDS)
"""For the command line, which has the database alone."""


class Makers:
    """``admin_key`` is the bootstrap admin's; ``admin_rules`` are the hashes of the rules that make
    workloads admins; ``issuer`` and ``admin_groups`` say who signs admins on."""

    def __init__(
        self,
        cipher: Cipher,
        *,
        admin_key: str | None,
        admin_rules: Sequence[bytes],
        issuer: str | None,
        admin_groups: Sequence[str],
    ) -> None:
        # An operator chose this key, so its plain hash could be guessed from a dump.
        self._bootstrap = [
            hmac.new(key, admin_key.encode(), hashlib.sha256).digest()
            for key in cipher.derived_keys("ignition-broker maker")
            if admin_key
        ]
        self.standing = Standing(
            vouched=[*self._bootstrap, *admin_rules],
            issuer=issuer,
            admin_groups=admin_groups,
            session_lifetime_seconds=LIFETIME_SECONDS,
            session_idle_seconds=IDLE_SECONDS,
        )

    def of(self, caller: Caller, session_hash: bytes | None = None) -> Maker:
        """``session_hash``: of the session that it was done in, if it was done in one."""
        if caller.name == BOOTSTRAP_ADMIN:
            return Maker(setting=self._bootstrap[0], session=session_hash)
        return Maker(caller.key_hash or None, caller.rule_hash or None, session_hash)
