"""The bootstrap admin key as the database remembers it: never by its plain hash.

An operator chose this key, so whoever has a dump of the database could try likely ones against a
plain hash. What is stored is an HMAC by a key that only the settings have (RFC 2104, RFC 5869).
"""

from __future__ import annotations

import hashlib
import hmac

from ignition_broker.cipher import Cipher, is_same_secret


def bootstrap_key_hashes(cipher: Cipher, purpose: str, admin_key: str | None) -> tuple[bytes, ...]:
    """One hash for each encryption key, the newest first, so that what was stored under an older
    one still counts while the encryption keys are rotated.

    Args:
        purpose: what the hashes are for; those for other purposes differ.
        admin_key: the bootstrap admin's; None: no hashes.
    """
    if not admin_key:
        return ()
    key = admin_key.encode("utf-8", "surrogateescape")
    return tuple(
        hmac.new(secret, key, hashlib.sha256).digest() for secret in cipher.derived_keys(purpose)
    )


class BootstrapKeyHashes:
    """By which a session knows that the bootstrap admin key began it.

    ``admin_key`` None: none did.
    """

    def __init__(self, cipher: Cipher, admin_key: str | None) -> None:
        self._hashes = bootstrap_key_hashes(cipher, "ignition-broker session", admin_key)

    @property
    def newest(self) -> bytes:
        """The one that a new session stores."""
        return self._hashes[0]

    def __contains__(self, hashed: bytes) -> bool:
        return any(is_same_secret(hashed, known) for known in self._hashes)
