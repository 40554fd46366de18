"""How much of a body a request announces."""

from __future__ import annotations

import pytest

from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.proxy.framing import framing


@pytest.mark.parametrize(
    ("headers", "announced"),
    [
        ([], (0, False)),
        ([(b"content-length", b"0")], (0, False)),
        ([(b"content-length", b"7")], (7, True)),
        ([(b"transfer-encoding", b"Chunked")], (0, True)),
        ([(b"content-length", b"7"), (b"transfer-encoding", b"chunked")], (0, True)),
        ([(b"content-length", b"-7")], (0, False)),
    ],
)
def test_a_body_is_announced_by_its_length_or_by_chunks(headers, announced):
    assert framing(headers) == announced


@pytest.mark.parametrize("codings", [[b"gzip"], [b"gzip, chunked"], [b"chunked", b"chunked"]])
def test_a_coding_that_cannot_be_passed_on_is_refused(codings):
    with pytest.raises(InvalidRequest, match="Transfer-Encoding"):
        framing([(b"transfer-encoding", coding) for coding in codings])
