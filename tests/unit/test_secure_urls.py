"""Which URLs may carry a secret."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from ignition_broker.secure_urls import is_https_or_loopback


@pytest.mark.parametrize(
    "url",
    ["https://x", "HTTPS://x", "http://localhost:3000", "http://127.0.0.1", "http://[::1]:1/"],
)
def test_https_and_this_very_machine_may(url):
    assert is_https_or_loopback(urlsplit(url))


@pytest.mark.parametrize(
    "url",
    ["http://x", "http://localhost.example", "http://127.0.0.1.example", "ftp://localhost", "//x"],
)
def test_nothing_else_may(url):
    assert not is_https_or_loopback(urlsplit(url))
