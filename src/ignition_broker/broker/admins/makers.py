"""By which credential a connect link or a sign-in was made: it ends when that credential ends.

The maker is an API key, the bootstrap admin key, a rule for JWTs, or an admin's session.
"""

from __future__ import annotations

from collections.abc import Sequence

from ignition_broker.broker.admins.bootstrap import bootstrap_key_hashes
from ignition_broker.broker.admins.sessions import IDLE_SECONDS, LIFETIME_SECONDS
from ignition_broker.broker.callers.api_keys import BOOTSTRAP_ADMIN
from ignition_broker.cipher import Cipher
from ignition_broker.model import Caller
from ignition_broker.storage.makers import Maker, Standing

ANY_SETTINGS = Standing(None, None, (), LIFETIME_SECONDS, IDLE_SECONDS)
"""For the command line, which does not know the settings of `serve`."""


class Makers:
    """Names the maker for each caller, and says which makers the settings still allow.

    Args:
        admin_key: the bootstrap admin's API key, where there is one.
        admin_rules: the hashes of the rules that make workloads admins.
        issuer: the identity provider that signs admins on, where there is one.
        admin_groups: its groups whose members are admins.
    """

    def __init__(
        self,
        cipher: Cipher,
        *,
        admin_key: str | None,
        admin_rules: Sequence[bytes],
        issuer: str | None,
        admin_groups: Sequence[str],
    ) -> None:
        self._bootstrap = bootstrap_key_hashes(cipher, "ignition-broker maker", admin_key)
        self.standing = Standing(
            vouched=[*self._bootstrap, *admin_rules],
            issuer=issuer,
            admin_groups=admin_groups,
            session_lifetime_seconds=LIFETIME_SECONDS,
            session_idle_seconds=IDLE_SECONDS,
        )

    def of(self, caller: Caller, session_hash: bytes | None = None) -> Maker:
        """The maker of what ``caller`` makes, in the session of ``session_hash`` if in any."""
        if caller.name == BOOTSTRAP_ADMIN:
            return Maker(setting=self._bootstrap[0], session=session_hash)
        return Maker(caller.key_hash or None, caller.rule_hash or None, session_hash)
