"""Import files: what is read, what is refused, and that no fault shows a value."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ignition_broker.broker.moving.files import read_rows

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLIENTS = ["default", "sandbox"]


def read(content: str | bytes):
    raw = content.encode() if isinstance(content, str) else content
    return read_rows(raw, now=NOW, clients=CLIENTS)


@pytest.mark.parametrize(
    "content",
    [
        "tenant,refresh_token,labels\nacme,secret-1,tier=gold;region=eu\n",
        '\ufefftenant;refresh_token;labels\r\nacme;secret-1;"tier=gold;region=eu"\r\n',
        'Tenant\tRefresh_Token\tlabels\nacme\tsecret-1\t"{""tier"":""gold"",""region"":""eu""}"',
        '{"tenant":"acme","refresh_token":"secret-1","labels":{"tier":"gold","region":"eu"}}\n\n',
    ],
)
def test_the_same_row_in_each_spelling(content):
    reading = read(content)
    assert reading.faults == []
    (row,) = reading.rows
    assert (row.grant, row.refresh_token.reveal()) == ("acme", "secret-1")
    assert dict(row.labels) == {"tier": "gold", "region": "eu"}
    assert row.expires_at is None


@pytest.mark.parametrize(
    ("content", "line", "told"),
    [
        ("", 0, "has no rows"),
        ("tenant,refresh_token\n", 0, "has no rows"),
        ("acme,secret-1\n", 1, "must be the header"),
        ("tenant,refresh_token,expires_in\na,secret-1,1\n", 1, "unknown column expires_in"),
        ("tenant,tenant\na,secret-1\n", 1, "names a column twice"),
        ("tenant,refresh_token\na,secret-1,x\n", 2, "has 3 fields, the header 2"),
        ('tenant,refresh_token\na,secret-1\nb,"secret-2\n', 3, "no proper CSV"),
        ("tenant,refresh_token\nsecret A,secret-1\n", 2, "tenant: must have"),
        ("tenant,refresh_token\na,secret-1\na,secret-2\n", 3, "tenant: is that of line 2"),
        ("tenant,refresh_token\na,secret-1\nb,secret-1\n", 3, "refresh_token: is that of line 2"),
        ("tenant,refresh_token\na,secret 1\n", 2, "refresh_token: has blanks"),
        ("tenant,refresh_token\na,NULL\n", 2, "refresh_token: is a word for nothing"),
        ("tenant,refresh_token\na,\n", 2, "refresh_token: is missing"),
        ("tenant,access_token,expires_at\na,secret-1,2020-01-01T00:00:00Z\n", 2, "has expired"),
        ("tenant,refresh_token,access_token\na,secret-1,secret-1\n", 2, "is the same as"),
        ("tenant,refresh_token,expires_at\na,secret-1,2027-01-01T00:00:00\n", 2, "no offset"),
        ("tenant,refresh_token,expires_at\na,secret-1,1800000000000\n", 2, "milliseconds"),
        ("tenant,refresh_token,expires_at\na,secret-1,nan\n", 2, "expires_at: must be"),
        ("tenant,refresh_token,client\na,secret-1,other\n", 2, "client: IGNITION_CLIENTS"),
        ("tenant,refresh_token,labels\na,secret-1,secret\n", 2, "labels: must be key=value"),
        ('{"tenant":"a","refresh_token":"secret-1"}\n{"tenant":\n', 2, "no JSON object"),
        ('{"tenant":"a","tenant":"secret"}', 1, "twice"),
        ('{"tenant":"a","refresh_token":7}', 1, "refresh_token: must be a text"),
        ('{"tenant":"a","refresh_token":"secret-1","x":1}', 1, "unknown column x"),
        ('{"tenant":"a","refresh_token":"secret-1","expires_at":Infinity}', 1, "no JSON object"),
        ("[" * 100_000, 1, "no JSON object"),
        ("tenant,refresh_token\na,secret-1\n".encode("utf-16"), 0, "UTF-16"),
        (b"tenant,refresh_token\na,secret-\xff\n", 2, "no UTF-8"),
        (b"tenant,refresh_token\na,secret\0\n", 2, "NUL"),
    ],
)
def test_no_fault_shows_a_value(content, line, told):
    faults = read(content).faults
    assert [at for at, _text in faults] == [line]
    assert told in faults[0][1]
    assert "secret" not in faults[0][1]


@given(
    st.one_of(
        st.binary(max_size=300),
        st.text(max_size=300).map(lambda t: t.encode("utf-8", "surrogatepass")),
    )
)
def test_no_bytes_make_it_raise(content):
    reading = read(content)
    assert reading.rows or reading.faults


@given(
    st.dictionaries(
        st.sampled_from(
            ["tenant", "refresh_token", "expires_at", "labels", "name", "scope", "client"]
        ),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=20),
            st.lists(st.text(max_size=5), max_size=3),
        ),
    )
)
def test_no_object_makes_it_raise(fields):
    reading = read(json.dumps(fields))
    assert reading.rows or reading.faults
