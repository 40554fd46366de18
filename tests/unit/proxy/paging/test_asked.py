"""What a caller may ask for with `Broker-Paginate`."""

from __future__ import annotations

import pytest

from ignition_broker.proxy.paging.asked import PagingRefused, pages_asked


@pytest.mark.parametrize(
    ("value", "with_checkpoints"),
    [
        (b"all", False),
        (b" ALL ", False),
        (b"all, checkpoints", True),
        (b"checkpoints,all", True),
    ],
)
def test_all_pages_are_asked_for_with_or_without_checkpoints(value, with_checkpoints):
    asked = pages_asked(value, "GET", has_body=False)
    assert asked.with_checkpoints is with_checkpoints


@pytest.mark.parametrize(
    "value", [b"", b"1", b"true", b"checkpoints", b"all, all", b"all,", b"all, pages", b"\xff"]
)
def test_any_other_value_is_refused_with_what_would_be_right(value):
    with pytest.raises(PagingRefused, match="Broker-Paginate: must be 'all'"):
        pages_asked(value, "GET", has_body=False)


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_only_a_get_has_pages(method):
    with pytest.raises(PagingRefused, match=f"Broker-Paginate: goes with GET, not with {method}"):
        pages_asked(b"all", method, has_body=False)


def test_a_body_could_not_be_sent_with_every_page():
    with pytest.raises(PagingRefused, match="without a body"):
        pages_asked(b"all", "GET", has_body=True)
