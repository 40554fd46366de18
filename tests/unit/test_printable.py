"""What is left of text that somebody else wrote."""

from __future__ import annotations

from ignition_broker.printable import printable


def test_control_characters_are_left_out_before_the_text_is_cut():
    assert printable("a\x00b\r\n\x1b[31mc\u202ed é", 100) == "ab[31mcd é"
    assert printable("\x00\x00abc", 2) == "ab"
