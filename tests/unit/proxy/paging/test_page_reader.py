"""Rows come out of a page as they are written in it."""

from __future__ import annotations

import codecs
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ignition_broker.proxy.paging.errors import PageUnreadable
from ignition_broker.proxy.paging.lines import OWN_LINE_BEGINS
from ignition_broker.proxy.paging.page_reader import (
    LONGEST_CURSOR,
    STEP_BYTES,
    Page,
    PageReader,
)

END = {"pagination": {"has_more": False, "next_cursor": None, "limit": 100}}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def read(body: bytes | str) -> Page:
    reader = PageReader(body.encode() if isinstance(body, str) else body)
    for _ in reader.steps():
        pass
    assert reader.page is not None
    return reader.page


def with_rows(rows: str) -> str:
    return f'{{"data":[{rows}],"meta":{json.dumps(END)}}}'


@given(
    rows=st.lists(VALUES),
    meta_goes_first=st.booleans(),
    is_ascii=st.booleans(),
    indent=st.sampled_from([None, 0, 3]),
    has_more=st.booleans(),
    cursor=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40) | st.none(),
    other=VALUES,
)
def test_rows_are_those_that_json_reads(
    rows, meta_goes_first, is_ascii, indent, has_more, cursor, other
):
    meta = {"total": other, "pagination": {"has_more": has_more, "next_cursor": cursor}}
    members = {"meta": meta, "other": other, "data": rows}
    names = list(members) if meta_goes_first else list(reversed(members))
    document = {name: members[name] for name in names}
    page = read(json.dumps(document, ensure_ascii=is_ascii, indent=indent))
    lines = page.lines.split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == rows
    assert page.rows == len(rows)
    assert (page.has_more, page.next_cursor) == (has_more, cursor)
    assert not any(line.startswith(OWN_LINE_BEGINS) for line in lines)


@pytest.mark.parametrize(
    "row",
    [
        '{"amount":1.10,"n":1E400,"m":-0.0}',
        '{"id":123456789012345678901234567890}',
        "9" * 5000,
        r'{"name":"\u00e9\ud800 \/ \\n é 🎉"}',
        '{"a":1,"a":2}',
        '{ "a" :\t[1 , 2] }',
        "null",
        '"text"',
        "[]",
    ],
)
def test_a_row_has_the_very_bytes_that_came(row):
    assert read(with_rows(row)).lines == row.encode() + b"\n"


def test_line_breaks_between_tokens_are_left_out_and_those_in_strings_stay_escaped():
    page = read(with_rows('\r\n  {\n    "a": "x\\ny",\r\n    "b": [\n1\n]\n  }\n,\n 2 '))
    assert page.lines == b'{    "a": "x\\ny",    "b": [1]  }\n2\n'


@pytest.mark.parametrize(
    "row", ['{"broker":{"complete":true}}', '{\n"broker":1}', '{"broker":null,"slug":"a"}']
)
def test_no_row_begins_like_a_line_of_the_brokers_own(row):
    (line,) = read(with_rows(row)).lines.splitlines()
    assert line.startswith(b'{ "broker":')
    assert json.loads(line) == json.loads(row)


def test_a_byte_order_mark_is_no_part_of_the_page():
    assert read(codecs.BOM_UTF8 + with_rows("1").encode()).rows == 1


def test_a_number_is_a_cursor_too_and_an_empty_one_is_none():
    body = '{"data":[],"meta":{"pagination":{"has_more":true,"next_cursor":%s}}}'
    assert read(body % "17").next_cursor == "17"
    assert read(body % '""').next_cursor is None


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"data":[]}',
        '{"data":{},"meta":%s}',
        '{"data":null,"meta":%s}',
        '{"rows":[],"meta":%s}',
        '{"data":[],"meta":null}',
        '{"data":[],"meta":[]}',
        '{"data":[],"meta":{"pagination":[]}}',
        '{"data":[],"meta":{"pagination":{"next_cursor":"a"}}}',
        '{"data":[],"meta":{"pagination":{"has_more":1,"next_cursor":"a"}}}',
        '{"data":[],"meta":{"pagination":{"has_more":true,"next_cursor":{}}}}',
        '{"data":[],"meta":{"pagination":{"has_more":true,"next_cursor":true}}}',
        '{"data":[],"meta":{"pagination":{"has_more":true,"next_cursor":1.5}}}',
        '{"data":[],"data":[1],"meta":%s}',
        '{"data":[],"meta":%s,"meta":null}',
        '{"data":[],"\\u0064ata":[1],"meta":%s}',
        '{"data":[],"meta":{"pagination":{"has_more":true,"next_cursor":"%s"}}}'
        % ("x" * (LONGEST_CURSOR + 1)),
    ],
)
def test_another_form_is_no_page(body):
    with pytest.raises(PageUnreadable):
        read(body.replace("%s", json.dumps(END)))


@pytest.mark.parametrize(
    "rows",
    [
        ",",
        "1,",
        "1 2",
        "1,,2",
        "{]",
        '{"a":1,}',
        "{a:1}",
        "'a'",
        "01",
        "1.",
        "+1",
        "NaN",
        "-Infinity",
        '"a\nb"',
        '"a\tb"',
        '"\\x"',
        "tru",
        "1]",
        "\xa0",
    ],
)
def test_what_is_no_json_is_no_page(rows):
    with pytest.raises(PageUnreadable):
        read(with_rows(rows))


@pytest.mark.parametrize("ending", ["", "}", "{}", "]", ",", '"'])
def test_nothing_may_be_missing_or_follow(ending):
    whole = with_rows("1")
    assert read(whole).rows == 1
    with pytest.raises(PageUnreadable):
        read((whole if ending else whole[:-1]) + ending)


@pytest.mark.parametrize("text", [b'"\xff"', b'"\xc3"', b'"\xed\xa0\x80"'])
def test_what_is_not_utf_8_is_no_page(text):
    with pytest.raises(PageUnreadable, match="UTF-8"):
        read(with_rows("%s").encode().replace(b"%s", text))


def test_a_row_nested_without_end_is_refused_and_not_followed():
    with pytest.raises(PageUnreadable, match="nested"):
        read(with_rows("[" * 100_000 + "]" * 100_000))


def test_a_long_page_lets_others_have_their_turn_amid_it():
    row = json.dumps({"text": "x" * 1000})
    body = with_rows(",".join([row] * 1000)).encode()
    turns = sum(1 for _ in PageReader(body).steps())
    assert turns >= 2 * (len(body) // (STEP_BYTES + 2 * len(row)))
