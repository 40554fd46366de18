"""A file of grants that only the holder of one private key can read. Does no I/O.

Its first line is a JWE (RFC 7516) for that key, which holds a new content key; each other line is a
JWE by the content key. Every line has its number inside, and the last one says how many there are,
so that a line that was removed, repeated, moved or taken from another file is noticed.
"""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping
from typing import Any, Final

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey, OKPKey

CURVE: Final = "X25519"
_VERSION: Final = 1
_TO_KEY: Final = {"alg": "ECDH-ES+A256KW", "enc": "A256GCM"}
_BY_CONTENT_KEY: Final = {"alg": "dir", "enc": "A256GCM"}
_CONTENT_KEY_BYTES = 32


class KeyRefused(ValueError):
    """Says what is wrong with a key, and shows nothing of it."""


class SealedFileRefused(ValueError):
    """``line``: where it is wrong, from 1."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def new_key_pair() -> tuple[str, str]:
    """A private key and its public key, each as JSON (JWK of RFC 8037, curve X25519)."""
    key = OKPKey.generate_key(CURVE, private=True)
    return json.dumps(key.as_dict(private=True)), json.dumps(key.as_dict(private=False))


def public_key(text: str) -> OKPKey:
    """The public key in a JWK. Raises `KeyRefused`, for a private one too."""
    key = _key(text)
    if key.is_private:
        raise KeyRefused("is a private key; give the public one, which `tenants export-key` prints")
    return key


def private_key(text: str) -> OKPKey:
    """The private key in a JWK. Raises `KeyRefused`."""
    key = _key(text)
    if not key.is_private:
        raise KeyRefused("is the public key; give the file that `tenants export-key` wrote")
    return key


def is_sealed(content: bytes) -> bool:
    """Whether it looks like such a file, and not like rows in clear."""
    first, _newline, _rest = content.lstrip().partition(b"\n")
    return first.count(b".") == 4 and first.startswith(b"eyJ")


class SealedWriter:
    """Makes the lines of one file: `header`, then a `line` for each grant, then `end`."""

    def __init__(self, to_key: OKPKey) -> None:
        self._to_key = to_key
        secret = secrets.token_bytes(_CONTENT_KEY_BYTES)
        self._encoded = urlsafe_b64encode(secret).decode("ascii")
        self._content_key = OctKey.import_key(secret)
        self.count = 0

    def header(self) -> str:
        held = {"version": _VERSION, "content_key": self._encoded}
        return _encrypted(_TO_KEY, held, self._to_key)

    def line(self, fields: Mapping[str, object]) -> str:
        """``fields``: of `rows.COLUMNS`."""
        self.count += 1
        return _encrypted(_BY_CONTENT_KEY, {"n": self.count, "grant": fields}, self._content_key)

    def end(self) -> str:
        held = {"n": self.count + 1, "count": self.count}
        return _encrypted(_BY_CONTENT_KEY, held, self._content_key)


def opened(content: bytes, key: OKPKey) -> bytes:
    """The grants of a file as JSON lines, as `files.read_rows` takes them; each is on the line that
    it has in the file. Raises `SealedFileRefused`."""
    return b"\n" + b"\n".join(_grants(content, key))


def _grants(content: bytes, key: OKPKey) -> Iterator[bytes]:
    lines = content.split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    head = _decrypted(lines[0] if lines else b"", _TO_KEY, key, 1, "another key is needed, or")
    if head.get("version") != _VERSION:
        raise SealedFileRefused(1, "is of a newer release; import it by that one")
    try:
        content_key = OctKey.import_key(urlsafe_b64decode(str(head["content_key"])))
    except (KeyError, Base64Error, ValueError):
        raise SealedFileRefused(1, "holds no content key; export it again") from None
    count: object = None
    for number, line in enumerate(lines[1:], 1):
        at = number + 1
        if count is not None:
            raise SealedFileRefused(at, "follows the last line; export it again")
        held = _decrypted(line, _BY_CONTENT_KEY, content_key, at, "it was changed, or")
        if held.get("n") != number:
            raise SealedFileRefused(
                at, f"is line {held.get('n')} of the export: lines are missing, repeated or moved"
            )
        if "count" in held:
            count = held["count"]
            if count != number - 1:
                raise SealedFileRefused(at, f"says {count} grants, and there are {number - 1}")
        else:
            yield json.dumps(held["grant"]).encode("ascii")
    if count is None:
        raise SealedFileRefused(len(lines), "is not the last line: the file is cut off")


def _encrypted(header: Mapping[str, str], held: Mapping[str, object], key: OKPKey | OctKey) -> str:
    plaintext = json.dumps(held, separators=(",", ":")).encode("ascii")
    return jwe.encrypt_compact(dict(header), plaintext, key, algorithms=list(header.values()))


def _decrypted(
    line: bytes, header: Mapping[str, str], key: OKPKey | OctKey, number: int, why: str
) -> dict[str, Any]:
    try:
        found = jwe.decrypt_compact(line.strip(), key, algorithms=list(header.values()))
        held = json.loads(found.plaintext or b"")
    except (JoseError, ValueError, TypeError, KeyError):
        text = f"can't be decrypted: {why} it belongs to another file"
        raise SealedFileRefused(number, text) from None
    if not isinstance(held, dict):
        raise SealedFileRefused(number, "holds no object; export it again")
    return held


def _key(text: str) -> OKPKey:
    try:
        key = OKPKey.import_key(json.loads(text))
    except (JoseError, ValueError, TypeError, KeyError):
        raise KeyRefused("is no JWK of an X25519 key (RFC 8037)") from None
    if key.curve_name != CURVE:
        raise KeyRefused(f"is of the curve {key.curve_name}; make an X25519 key")
    return key
