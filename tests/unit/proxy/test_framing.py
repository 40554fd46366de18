"""What a request's headers announce."""

from __future__ import annotations

import pytest

from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.proxy.framing import announced


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], (0, False)),
        ([(b"content-length", b"0")], (0, False)),
        ([(b"content-length", b"7")], (7, True)),
        ([(b"transfer-encoding", b"Chunked")], (0, True)),
        ([(b"content-length", b"7"), (b"transfer-encoding", b"chunked")], (0, True)),
        ([(b"content-length", b"-7")], (0, False)),
    ],
)
def test_a_body_is_announced_by_its_length_or_by_chunks(headers, expected):
    assert announced(headers) == (*expected, None)


def test_a_wish_to_the_broker_comes_by_one_header_or_by_several():
    paginate, wait = b"broker-paginate", b"broker-wait"
    assert announced([(paginate, b"all")]) == (0, False, {paginate: b"all"})
    several = [(paginate, b"all"), (b"content-length", b"1"), (wait, b"5"), (paginate, b"b")]
    assert announced(several) == (1, True, {paginate: b"all,b", wait: b"5"})
    chunked = [(wait, b"5"), (b"transfer-encoding", b"chunked"), (wait, b"6")]
    assert announced(chunked) == (0, True, {wait: b"5,6"})


@pytest.mark.parametrize("codings", [[b"gzip"], [b"gzip, chunked"], [b"chunked", b"chunked"]])
def test_a_coding_that_cannot_be_passed_on_is_refused(codings):
    with pytest.raises(InvalidRequest, match="Transfer-Encoding"):
        announced([(b"transfer-encoding", coding) for coding in codings])
