"""Turns the raw path that a caller sent into the target for the API, or refuses it. Pure."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote_to_bytes

from ignition_broker.broker.errors import InvalidRequest

# Matches most paths: no segment begins with a dot and nothing is encoded, so all is well.
_PLAIN = re.compile(rb"(?:/[A-Za-z0-9_~-][A-Za-z0-9_~.-]*)+/?")
_VISIBLE = re.compile(rb"[\x21-\x7e\x80-\xff]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Some servers trim blanks ahead of the dots. Behind them, some server stops reading at each
# character that is no part of a name: '?' and '#' after a second decoding, ';', blanks, ':' on
# Windows. An escape is judged when it has been decoded.
_DOT_SEGMENT = re.compile(r"(?:^|/)\s*\.{1,2}(?:[^\w.~%-]|%(?![0-9A-Fa-f]{2})|$)")
_OVERLONG = re.compile(
    rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80-\x9f][\x80-\xbf]|\xf0[\x80-\x8f][\x80-\xbf]{2}"
)
_PERCENT_U = re.compile(r"%[uU]([0-9A-Fa-f]{4})")
# NFKC leaves these alone, and Windows takes them for '/' and '\\'.
_LOOKALIKES = {0x2044: "/", 0x2215: "/", 0x2216: "\\"}
_DECODINGS = 4


class PathRefused(InvalidRequest):
    """The target could leave the API's base path."""


def upstream_target(base_path: bytes, raw_path: bytes, query: bytes) -> bytes:
    """The origin-form target (RFC 9112 section 3.2.1): ``base_path``, which ends without a slash,
    and then ``raw_path`` and ``query`` byte for byte.

    Raises `PathRefused` for a path that some server could read as leaving the base path: with dot
    segments or backslashes (also encoded, encoded again, in overlong UTF-8, by lookalikes, or with
    something behind the dots at which a server may stop reading), with control characters, or not
    in origin-form.
    """
    if not query and _PLAIN.fullmatch(raw_path):
        return base_path + raw_path
    if not _VISIBLE.fullmatch(raw_path) or not _VISIBLE.fullmatch(query):
        raise PathRefused("The path holds a space or a control character.")
    if b"#" in raw_path or b"#" in query or b"?" in raw_path:
        raise PathRefused("The path holds a '#' or a stray '?'.")
    if raw_path and not raw_path.startswith(b"/"):
        raise PathRefused("The path must begin with '/'.")
    if raw_path.startswith(b"//"):
        raise PathRefused("The path must not begin with '//'.")
    _refuse_escapes(raw_path)
    target = base_path + (raw_path or b"/")
    return target + b"?" + query if query else target


def _refuse_escapes(path: bytes) -> None:
    for _ in range(_DECODINGS):
        text = _read_leniently(path)
        if "\\" in text:
            raise PathRefused("The path holds a backslash.")
        if _CONTROL.search(text):
            raise PathRefused("The path holds an encoded control character.")
        if _DOT_SEGMENT.search(text):
            raise PathRefused("The path holds a dot segment ('.' or '..').")
        decoded = unquote_to_bytes(text)
        if decoded == text.encode():
            return
        path = decoded
    raise PathRefused("The path is percent-encoded too many times over.")


def _read_leniently(path: bytes) -> str:
    """The path as the most lenient server reads it: it accepts overlong UTF-8 (RFC 3629 section 10)
    and ``%u002e``, and takes lookalikes for dots and slashes."""
    if path.isascii():
        text = path.decode("ascii")
    else:
        text = _OVERLONG.sub(_shortened, path).decode("utf-8", "replace")
        text = unicodedata.normalize("NFKC", text.translate(_LOOKALIKES))
    return _PERCENT_U.sub(lambda code: chr(int(code[1], 16)), text)


def _shortened(overlong: re.Match[bytes]) -> bytes:
    first, *others = overlong[0]
    code = first & (0x3F >> len(others))
    for byte in others:
        code = code << 6 | byte & 0x3F
    return chr(code).encode()
