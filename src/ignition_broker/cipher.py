"""Encryption at rest: Fernet, with each ciphertext bound to the row and column it stands in.

CipherError
├── Unreadable     no configured key opens it
└── Misplaced      it opens, but was written for another tenant or column
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class CipherError(Exception):
    """A stored ciphertext can't be used."""


class Unreadable(CipherError):
    """None of the configured keys decrypts it."""


class Misplaced(CipherError):
    """It was written for another tenant or column, so somebody moved it."""


class Cipher:
    """Encrypts with the first of ``keys``, decrypts with all of them.

    ``keys`` are Fernet keys: 32 bytes, URL-safe base64. Raises `ValueError` for anything else.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise ValueError("at least one Fernet key is needed")
        self._fernet = MultiFernet([Fernet(key) for key in keys])
        self._newest = Fernet(keys[0])
        self._keys = tuple(key.encode() for key in keys)

    def encrypt(self, tenant: str, column: str, value: str) -> bytes:
        payload = json.dumps([tenant, column, value], separators=(",", ":"))
        return self._fernet.encrypt(payload.encode())

    def decrypt(self, tenant: str, column: str, ciphertext: bytes) -> str:
        """The value; raises `Unreadable` or `Misplaced`."""
        try:
            payload = self._fernet.decrypt(ciphertext)
        except InvalidToken:
            raise Unreadable(f"no configured key decrypts {column} of tenant {tenant!r}") from None
        written_for, written_in, value = json.loads(payload)
        if (written_for, written_in) != (tenant, column):
            raise Misplaced(f"the ciphertext in {column} of tenant {tenant!r} belongs elsewhere")
        return str(value)

    def is_newest(self, ciphertext: bytes) -> bool:
        """Whether the first key wrote it, so that a rotation can pass it over."""
        try:
            self._newest.decrypt(ciphertext)
        except InvalidToken:
            return False
        return True

    def derived_keys(self, purpose: str) -> tuple[bytes, ...]:
        """A 32-byte key per Fernet key for ``purpose`` (RFC 5869), the first to sign with."""
        return tuple(
            HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(key)
            for key in self._keys
        )


def is_same_secret(left: str | bytes, right: str | bytes) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(
        left.encode() if isinstance(left, str) else left,
        right.encode() if isinstance(right, str) else right,
    )
