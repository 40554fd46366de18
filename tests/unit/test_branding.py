"""`BROKER_BRAND` and what belongs to it, checked when the service starts."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ignition_broker.branding import check_color, contrast_with_white, darkened
from ignition_broker.settings import SettingsError

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">{}</svg>'


def png(width: int, height: int) -> bytes:
    header = struct.pack(">I", 13) + b"IHDR" + struct.pack(">II", width, height)
    return b"\x89PNG\r\n\x1a\n" + header + b"\x08\x06\0\0\0" + b"\0" * 16


@pytest.mark.parametrize(
    ("color", "ratio"), [("#000000", 21.0), ("#ffffff", 1.0), ("#767676", 4.54), ("#777777", 4.48)]
)
def test_contrast_is_measured_as_wcag_does(color, ratio):
    assert contrast_with_white(color) == pytest.approx(ratio, abs=0.005)


def test_a_colour_is_taken_if_white_text_can_be_read_on_it(load):
    settings = load(BROKER_BRAND="Example & Söhne", BROKER_BRAND_COLOR="#0B5FA5")
    assert (settings.brand.name, settings.brand.color) == ("Example & Söhne", "#0b5fa5")


def test_a_colour_that_is_too_light_is_refused_with_its_ratio_and_a_darker_one(load):
    with pytest.raises(SettingsError) as refused:
        load(BROKER_BRAND_COLOR="#ffcc00")
    assert "BROKER_BRAND_COLOR: white text on it has a contrast of 1.5" in str(refused.value)
    assert f"such as {darkened('#ffcc00')}" in str(refused.value)


@given(st.integers(0, 0xFFFFFF))
def test_the_darker_colour_that_is_proposed_is_taken(number):
    assert check_color(darkened(f"#{number:06x}"))


@pytest.mark.parametrize("color", ["red", "#fff", "0b5fa5", "#0b5fa5;}", "#0b5fa5aa", "#gggggg"])
def test_what_is_no_colour_is_refused(load, color):
    with pytest.raises(SettingsError, match="must be # and six hexadecimal digits"):
        load(BROKER_BRAND_COLOR=color)


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (png(400, 120), "image/png"),
        (SVG.format('<style>a{fill:red}</style><use href="#a"/>').encode(), "image/svg+xml"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>" + SVG.format("<g/>").encode(), "image/svg+xml"),
    ],
)
def test_a_logo_is_a_png_or_an_svg(load, tmp_path, content, media_type):
    file = tmp_path / "logo"
    file.write_bytes(content)
    logo = load(BROKER_BRAND="Example", BROKER_BRAND_LOGO=str(file)).brand.logo
    assert (logo.media_type, logo.content) == (media_type, content)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (SVG.format("<script>x()</script>").encode(), "a script element"),
        (SVG.format("<g><SCRIPT/></g>").encode(), "a script element"),
        (SVG.format("<foreignObject/>").encode(), "a foreignobject element"),
        (SVG.format('<g onload="x()"/>').encode(), "the event handler onload"),
        (SVG.format('<image href="https://evil.example/x.png"/>').encode(), "another address"),
        (SVG.format('<a href="javascript:x()"/>').encode(), "another address"),
        (b"<!DOCTYPE svg [<!ENTITY a 'b'>]>" + SVG.format("&a;").encode(), "DOCTYPE"),
        (b"<svg/>", "must be a PNG or an SVG"),
        (b"GIF89a", "must be a PNG or an SVG"),
        (b"\xff\xd8\xff", "must be a PNG, or an SVG in UTF-8"),
        (b"", "must be a PNG or an SVG"),
        (png(400, 120)[:20], "no whole PNG"),
        (png(0, 1), "wider or higher"),
        (png(1, 5000), "wider or higher"),
        (png(1, 1) + b"\0" * 262_144, "more than 256 KiB"),
    ],
)
def test_a_logo_that_could_run_or_load_anything_is_refused(load, tmp_path, content, told):
    """And one that is no picture, or too large."""
    file = tmp_path / "logo"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"^BROKER_BRAND_LOGO: ") as refused:
        load(BROKER_BRAND="Example", BROKER_BRAND_LOGO=str(file))
    assert told in str(refused.value)


def test_a_logo_needs_a_file_and_a_name_for_those_who_cant_see_it(load, tmp_path):
    file = tmp_path / "logo"
    file.write_bytes(png(1, 1))
    with pytest.raises(SettingsError, match="needs BROKER_BRAND beside it"):
        load(BROKER_BRAND_LOGO=str(file))
    with pytest.raises(SettingsError, match="can't be read"):
        load(BROKER_BRAND="Example", BROKER_BRAND_LOGO=str(tmp_path / "none"))
