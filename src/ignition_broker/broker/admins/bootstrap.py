"""The bootstrap admin key as sessions in the database remember it."""

from __future__ import annotations

import hashlib
import hmac

from ignition_broker.cipher import Cipher, is_same_secret

PURPOSE = "ignition-broker session"


class BootstrapMarks:
    """An operator chose this key, so whoever has a dump could try likely ones against its plain
    hash. What is stored is an HMAC by a key that only the settings have (RFC 2104, RFC 5869).

    One per encryption key, so that sessions go on while those are changed. ``admin_key`` None:
    nothing is one.
    """

    def __init__(self, cipher: Cipher, admin_key: str | None) -> None:
        self._marks = tuple(
            hmac.new(key, admin_key.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
            for key in cipher.derived_keys(PURPOSE)
            if admin_key
        )

    @property
    def newest(self) -> bytes:
        """By the key that encrypts."""
        return self._marks[0]

    def __contains__(self, mark: bytes) -> bool:
        return any(is_same_secret(mark, known) for known in self._marks)
