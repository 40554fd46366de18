"""The company that the pages behind a connect link name: its name, logo and colour. Pure but for
the reading of the logo's file."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

MOST_LOGO_BYTES: Final = 262_144
LONGEST_LOGO_SIDE: Final = 4096
LEAST_CONTRAST: Final = 4.5
"""Of text and its background (WCAG 2.2, success criterion 1.4.3)."""

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_PNG = b"\x89PNG\r\n\x1a\n"
_SVG_ROOT = "{http://www.w3.org/2000/svg}svg"
# Elements that run or load something, or hold a page.
_ACTIVE_ELEMENTS = frozenset({"script", "foreignobject", "iframe", "embed", "object", "handler"})


@dataclass(frozen=True, slots=True)
class Logo:
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Brand:
    """``color``: ``#rrggbb``, behind white text; None: the pages' own."""

    name: str | None = None
    logo: Logo | None = None
    color: str | None = None


def check_color(text: str) -> str:
    """``text`` in lower case. Raises `ValueError` unless white text can be read on it."""
    if not _COLOR.fullmatch(text):
        raise ValueError("must be # and six hexadecimal digits")
    ratio = contrast_with_white(text)
    if ratio < LEAST_CONTRAST:
        # Rounded down, so that a ratio just below the limit is not shown as the limit.
        shown = int(ratio * 100) / 100
        raise ValueError(
            f"white text on it has a contrast of {shown:.2f}:1, and needs {LEAST_CONTRAST}:1; take "
            f"a darker one, such as {darkened(text)}"
        )
    return text.lower()


def contrast_with_white(color: str) -> float:
    """The contrast ratio of ``#rrggbb`` and white, from 1 to 21 (WCAG 2.2)."""
    red, green, blue = (_linear(channel / 255) for channel in _channels(color))
    return 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)


def darkened(color: str) -> str:
    """The lightest shade of the same hue that white text can be read on."""
    channels = _channels(color)
    for percent in range(99, -1, -1):
        shade = "#{:02x}{:02x}{:02x}".format(*(each * percent // 100 for each in channels))
        if contrast_with_white(shade) >= LEAST_CONTRAST:
            return shade
    raise AssertionError("black is always dark enough")


def read_logo(path: str) -> Logo:
    """The logo in the file. Raises `ValueError` if it can't be read, is neither PNG nor SVG, is too
    large, or is an SVG that runs or loads anything."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_LOGO_BYTES + 1)
    except OSError as error:
        raise ValueError(f"can't be read ({error.strerror})") from None
    if len(content) > MOST_LOGO_BYTES:
        raise ValueError(f"has more than {MOST_LOGO_BYTES // 1024} KiB; make it smaller")
    if content.startswith(_PNG):
        _check_png(content)
        return Logo("image/png", content)
    _check_svg(content)
    return Logo("image/svg+xml", content)


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def _check_png(content: bytes) -> None:
    """The first chunk says how large the picture is (PNG, section 11.2.2)."""
    if content[12:16] != b"IHDR" or len(content) < 33:
        raise ValueError("is no whole PNG; export it again")
    width, height = struct.unpack(">II", content[16:24])
    if not 0 < width <= LONGEST_LOGO_SIDE or not 0 < height <= LONGEST_LOGO_SIDE:
        raise ValueError(f"is wider or higher than {LONGEST_LOGO_SIDE} pixels; make it smaller")


def _check_svg(content: bytes) -> None:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("must be a PNG, or an SVG in UTF-8") from None
    # Before it is parsed: entities could grow without bound, or load files.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("is an SVG with a DOCTYPE or entities; take them out")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  # no DOCTYPE, a few KiB, the operator's
    except ElementTree.ParseError:
        raise ValueError("must be a PNG or an SVG") from None
    if root.tag != _SVG_ROOT:
        raise ValueError("must be a PNG or an SVG")
    for element in root.iter():
        name = element.tag.rpartition("}")[2].lower()
        if name in _ACTIVE_ELEMENTS:
            raise ValueError(f"is an SVG with a {name} element; take it out")
        for attribute, value in element.attrib.items():
            bare = attribute.rpartition("}")[2].lower()
            if bare.startswith("on"):
                raise ValueError(f"is an SVG with the event handler {bare}; take it out")
            if bare == "href" and not value.startswith(("#", "data:image/png;")):
                raise ValueError("is an SVG that refers to another address; take that out")
