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


def test_all_pages_are_asked_for_by_one_header_or_by_several():
    assert announced([(b"broker-paginate", b"all")]) == (0, False, b"all")
    several = [(b"broker-paginate", b"all"), (b"content-length", b"1"), (b"broker-paginate", b"b")]
    assert announced(several) == (1, True, b"all,b")


@pytest.mark.parametrize("codings", [[b"gzip"], [b"gzip, chunked"], [b"chunked", b"chunked"]])
def test_a_coding_that_cannot_be_passed_on_is_refused(codings):
    with pytest.raises(InvalidRequest, match="Transfer-Encoding"):
        announced([(b"transfer-encoding", coding) for coding in codings])
