"""Names and labels of tenants: what they may be, and what is told of the others."""

from __future__ import annotations

import pytest

from ignition_broker.tenant_labels import (
    LONGEST_NAME,
    LONGEST_VALUE,
    MOST_LABELS,
    LabelRefused,
    check_labels,
    check_name,
    parse_labels,
)


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"tier": "gold"},
        {"a": ""},
        {"example.com/region": "au"},
        {"K" * 63: "v" * LONGEST_VALUE},
        {"city": "Zürich, 3. Stock = oben"},
        {f"k{number}": "v" for number in range(MOST_LABELS)},
    ],
)
def test_labels_may_be(labels):
    assert check_labels(labels) == labels


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({f"k{number}": "v" for number in range(MOST_LABELS + 1)}, "labels: at most 20 a tenant"),
        ({"": "v"}, "labels: the key '' must have 1 to 63 of letters"),
        ({"-a": "v"}, "labels: the key '-a' must have"),
        ({"a/": "v"}, "letter or digit at both ends"),
        ({"k" * 64: "v"}, "must have 1 to 63"),
        ({"a b": "v"}, "labels: the key 'a b'"),
        ({"ключ": "v"}, "of letters, digits"),
        ({"a\n": "v"}, "labels: the key 'a\\n'"),
        ({"a": "v" * (LONGEST_VALUE + 1)}, "labels.a: must have at most 200 characters"),
        ({"a": "x\ny"}, "labels.a: must hold printable characters alone"),
        ({"a": "x\0"}, "labels.a: must hold printable"),
    ],
)
def test_what_is_wrong_with_a_label_is_told_with_its_field(labels, told):
    with pytest.raises(LabelRefused) as caught:
        check_labels(labels)
    assert told in str(caught.value)


@pytest.mark.parametrize("name", ["Acme", "Müller & Söhne 株式会社", "n" * LONGEST_NAME])
def test_a_name_may_be_any_printable_text(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "must not be empty"),
        ("   ", "must not be empty"),
        ("n" * (LONGEST_NAME + 1), "at most 200"),
        ("a\tb", "printable"),
        # It would show the name backwards.
        ("acme\u202egnp.exe", "printable"),
    ],
)
def test_what_is_wrong_with_a_name_is_told(name, told):
    with pytest.raises(LabelRefused, match=r"^name: ") as caught:
        check_name(name)
    assert told in str(caught.value)


def test_labels_are_read_as_they_are_written():
    assert parse_labels(["a=1", "b=x=y", "c="], "label") == {"a": "1", "b": "x=y", "c": ""}
    assert parse_labels(["a=1", "a=1"], "label") == {"a": "1"}


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["a"], "--label: must be key=value"),
        (["a=1", "a=2"], "--label: has the key 'a' twice"),
        (["=1"], "the key ''"),
    ],
)
def test_labels_that_are_not_written_so_are_refused(texts, told):
    with pytest.raises(LabelRefused) as caught:
        parse_labels(texts, "--label")
    assert told in str(caught.value)
