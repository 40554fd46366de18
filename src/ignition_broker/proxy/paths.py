"""From the raw path that a caller sent to the target that goes out, or a refusal. Pure."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from ignition_broker.broker.errors import InvalidRequest

# Most paths: no dot begins a segment, nothing is encoded, and there is nothing to judge.
_PLAIN = re.compile(rb"(?:/[A-Za-z0-9_~-][A-Za-z0-9_~.-]*)+/?")
_VISIBLE = re.compile(rb"[\x21-\x7e\x80-\xff]*")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_DECODINGS = 4


class PathRefused(InvalidRequest):
    """The target could leave the API's base path."""


def upstream_target(base_path: bytes, raw_path: bytes, query: bytes) -> bytes:
    """The target (RFC 9112 section 3.2.1), byte for byte but for ``base_path`` ahead of
    it, which ends without a slash.

    Raises `PathRefused` where some server could read it as leaving the base path: dot segments
    and backslashes, also encoded, encoded again, or hidden behind a path parameter; control
    characters; and anything that is no origin-form.
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
        if b"\\" in path:
            raise PathRefused("The path holds a backslash.")
        if _CONTROL.search(path):
            raise PathRefused("The path holds an encoded control character.")
        for segment in path.split(b"/"):
            if segment.split(b";", 1)[0] in (b".", b".."):
                raise PathRefused("The path holds a dot segment ('.' or '..').")
        decoded = unquote_to_bytes(path)
        if decoded == path:
            return
        path = decoded
    raise PathRefused("The path is percent-encoded too many times over.")
