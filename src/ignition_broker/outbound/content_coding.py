"""Undoing a body's content coding (RFC 9110 section 8.4), as far as it can be undone."""

from __future__ import annotations

import zlib

_GZIP_MAGIC = b"\x1f\x8b"
_MOST_CODINGS = 4


def decoded(body: bytes, content_encoding: str, *, limit_bytes: int) -> tuple[bytes, str | None]:
    """The body in clear, at most ``limit_bytes`` of it, and what could not be undone, or None.

    Servers compress unasked, and label what is plain. A body whose coding can't be undone comes
    back as it is, and one that is cut off as far as it goes: what can be read is for the caller to
    find out. gzip is undone without a label too: no JSON, form or page begins with its mark.
    """
    codings = [name for part in content_encoding.split(",") if (name := part.strip().lower())]
    if not codings and body.startswith(_GZIP_MAGIC):
        codings = ["gzip"]
    flaw = None
    # The last one named was applied last.
    for coding in reversed(codings[-_MOST_CODINGS:]):
        match coding:
            case "identity":
                pass
            case "gzip" | "x-gzip" | "deflate":
                body, flaw = _inflated(body, coding, limit_bytes)
            case other:
                flaw = f"its Content-Encoding {other[:40]!r} was not asked for"
        if flaw is not None:
            break
    return body, flaw


def _inflated(body: bytes, coding: str, limit_bytes: int) -> tuple[bytes, str | None]:
    # 32: zlib's header or gzip's, whichever is there; negative: neither, as some send "deflate".
    for window_bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):
        inflating = zlib.decompressobj(window_bits)
        try:
            plain = inflating.decompress(body, limit_bytes)
        except zlib.error:
            plain = b""
        if inflating.eof and not inflating.unconsumed_tail:
            return plain, None
        if window_bits > 0 and (plain := plain or _inflated_until_broken(body, limit_bytes)):
            return plain, "it is too large, cut off, or damaged"
    return body, f"it is not the {coding} that it says it is"


def _inflated_until_broken(body: bytes, limit_bytes: int) -> bytes:
    """What comes before the first error: a wrong checksum stands behind all of the content."""
    inflating = zlib.decompressobj(zlib.MAX_WBITS | 32)
    plain = bytearray()
    try:
        for start in range(len(body)):
            plain += inflating.decompress(body[start : start + 1], limit_bytes)
            if len(plain) >= limit_bytes:
                break
    except zlib.error:
        pass
    return bytes(plain[:limit_bytes])
