"""Answers of the hot path have the same security headers as those of the router."""

from __future__ import annotations

import httpx
import pytest


@pytest.mark.parametrize("path", ["/token/acme", "/forward-auth/acme", "/proxy/acme/v1/me"])
def test_a_refusal_is_neither_sniffed_nor_cached(broker, path):
    answer = httpx.get(broker.url + path)
    assert answer.status_code == 401
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/problem+json"
