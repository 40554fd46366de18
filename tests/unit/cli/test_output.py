from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from ignition_broker.cli import output

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def test_json_has_times_in_iso_8601(capsys):
    output.print_json({"at": MOMENT, "names": ("a", "b"), "never": None})
    printed, said = capsys.readouterr()
    assert json.loads(printed) == {
        "at": "2026-01-02T03:04:05.000678+00:00",
        "names": ["a", "b"],
        "never": None,
    }
    assert said == ""


def test_what_is_no_json_is_not_printed_as_if_it_were():
    with pytest.raises(TypeError):
        output.print_json({"key": b"bytes"})


def test_a_notice_is_not_part_of_the_result(capsys):
    output.print_notice("waiting")
    assert capsys.readouterr() == ("", "waiting\n")


def test_tables_show_times_to_the_second():
    assert output.time_text(MOMENT) == "2026-01-02 03:04:05"
    assert output.time_text(None) == ""
    assert output.time_text(None, absent="never") == "never"
