"""Encryption at rest: Fernet, with each ciphertext bound to its row and column.

CipherError
├── Unreadable     no configured key decrypts it
└── Misplaced      it was encrypted for another tenant or column
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64decode
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ignition_broker.grant_ids import quoted

FINGERPRINT_BYTES = 6
FINGERPRINT_PURPOSE = b"ignition-broker key fingerprint"


class CipherError(Exception):
    """The ciphertext in ``column`` of ``tenant``'s row can't be used."""

    def __init__(self, text: str, *, tenant: str, column: str, ciphertext: bytes) -> None:
        super().__init__(text)
        self.tenant = tenant
        self.column = column
        self.ciphertext = ciphertext


class Unreadable(CipherError):
    """None of the configured keys decrypts it."""


class Misplaced(CipherError):
    """It was encrypted for another tenant or column: somebody has moved it."""


class Cipher:
    """Encrypts with the first of ``keys``, decrypts with all of them.

    ``keys`` are Fernet keys: 32 bytes, URL-safe base64. Raises `ValueError` for anything else.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise ValueError("at least one Fernet key is needed")
        self._single = [Fernet(key) for key in keys]
        self._fernet = MultiFernet(self._single)
        self._keys = tuple(key.encode() for key in keys)
        self.fingerprints = tuple(fingerprint_of(key) for key in keys)

    def encrypt(self, tenant: str, column: str, value: str) -> bytes:
        """The ciphertext of ``value`` for that column of that tenant's row, under the first key."""
        payload = json.dumps([tenant, column, value], separators=(",", ":"))
        return self._single[0].encrypt(payload.encode())

    def decrypt(self, tenant: str, column: str, ciphertext: bytes) -> str:
        """The value that was encrypted for that column of that tenant's row.

        Raises `Unreadable` and `Misplaced`.
        """
        return self._opened(self._fernet, tenant, column, ciphertext)

    def renewed(self, tenant: str, column: str, ciphertext: bytes) -> bytes:
        """The ciphertext encrypted anew under the first key, or unchanged if it was under that one.

        Raises `Unreadable` and `Misplaced`.
        """
        try:
            self._opened(self._single[0], tenant, column, ciphertext)
        except Unreadable:
            older = MultiFernet(self._single[1:] or self._single)
            return self.encrypt(tenant, column, self._opened(older, tenant, column, ciphertext))
        return ciphertext

    def _opened(
        self, fernet: Fernet | MultiFernet, tenant: str, column: str, ciphertext: bytes
    ) -> str:
        try:
            payload = fernet.decrypt(ciphertext)
        except InvalidToken:
            text = f"no configured key decrypts {column} of tenant {quoted(tenant)}"
            raise Unreadable(text, tenant=tenant, column=column, ciphertext=ciphertext) from None
        written_for, written_in, value = json.loads(payload.decode())
        if (written_for, written_in) != (tenant, column):
            text = f"the ciphertext in {column} of tenant {quoted(tenant)} belongs elsewhere"
            raise Misplaced(text, tenant=tenant, column=column, ciphertext=ciphertext)
        return str(value)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the first key, which encrypts."""
        return self.fingerprints[0]

    def fingerprint_that_opens(self, ciphertext: bytes) -> str | None:
        """The fingerprint of the key that encrypted this; None if no configured key did."""
        for fernet, fingerprint in zip(self._single, self.fingerprints, strict=True):
            if _opens(fernet, ciphertext):
                return fingerprint
        return None

    def derived_keys(self, purpose: str) -> tuple[bytes, ...]:
        """Derives one 32-byte key for ``purpose`` from each Fernet key (HKDF, RFC 5869).

        The first is to sign with, all are to verify with.
        """
        return tuple(
            HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(key)
            for key in self._keys
        )


def fingerprint_of(key: str) -> str:
    """12 hexadecimal digits that identify a Fernet key and may be shown.

    They are derived by a one-way function (HKDF, RFC 5869). A key is 256 random bits, so that it
    can't be found by trying.
    """
    derived = HKDF(
        algorithm=SHA256(), length=FINGERPRINT_BYTES, salt=None, info=FINGERPRINT_PURPOSE
    )
    return derived.derive(urlsafe_b64decode(key)).hex()


def _opens(fernet: Fernet, ciphertext: bytes) -> bool:
    try:
        fernet.decrypt(ciphertext)
    except InvalidToken:
        return False
    return True


def secret_hash(secret: str) -> bytes:
    """SHA-256 (32 bytes), by which a random secret is kept and looked up.

    An unsalted hash is enough for 32 random bytes. ``surrogateescape``: the text may come from a
    header or an argument that is no UTF-8, and must then simply not be found.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def is_same_secret(left: str | bytes, right: str | bytes) -> bool:
    """Whether two secrets are equal, compared in constant time."""
    return hmac.compare_digest(
        left.encode() if isinstance(left, str) else left,
        right.encode() if isinstance(right, str) else right,
    )
