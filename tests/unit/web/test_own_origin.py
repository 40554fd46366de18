"""Which requests were sent to another address than `REDIRECT_URI`'s."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from ignition_broker.server.http_protocol import PEER
from ignition_broker.web.own_origin import OwnOrigin

TRUSTED = [ip_network("10.0.0.0/8")]


def scope(asked: str | None, *, peer: str = "10.1.2.3", scheme: str = "http", **forwarded: str):
    headers = [] if asked is None else [(b"host", asked.encode("latin-1"))]
    headers += [(f"x-forwarded-{name}".encode(), v.encode()) for name, v in forwarded.items()]
    return {"headers": headers, "scheme": scheme, "state": {PEER: (peer, 5555)}}


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:3000", "localhost:3000"),
        ("http://localhost:3000", "LOCALHOST:3000"),
        ("http://localhost:3000", "localhost"),
        ("https://broker.example", "broker.example"),
        ("https://broker.example", "broker.example:443"),
        ("https://broker.example:443", "broker.example"),
        ("http://[::1]:3000", "[::1]:3000"),
        ("https://bücher.example", "xn--bcher-kva.example"),
        ("https://broker.example", None),
    ],
)
def test_the_redirect_uris_own_host_is_here(origin, host):
    assert not OwnOrigin(origin, []).is_elsewhere(scope(host))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:3000", "127.0.0.1:3000"),
        ("http://localhost:3000", "[::1]:3000"),
        ("http://localhost:3000", "localhost:3001"),
        ("http://localhost:3000", "localhost.:3000"),
        ("https://broker.example", "broker.example:80"),
        ("https://broker.example", "www.broker.example"),
        ("https://broker.example", "broker"),
        ("https://broker.example", "broker.example:port"),
        ("https://broker.example", "[broker"),
        ("https://broker.example", "bröker.example"),
    ],
)
def test_any_other_host_is_elsewhere(origin, host):
    assert OwnOrigin(origin, []).is_elsewhere(scope(host))


def test_what_a_proxy_says_of_the_host_counts_if_it_is_trusted():
    ours = OwnOrigin("https://broker.example", TRUSTED)
    told = {"host": "broker.example", "proto": "https"}
    assert not ours.is_elsewhere(scope("broker:3000", scheme="https", **told))
    assert ours.is_elsewhere(scope("broker:3000", peer="192.0.2.1", scheme="https", **told))
    assert ours.is_elsewhere(scope("broker.example", host="other.example"))
    assert not ours.is_elsewhere(scope("broker.example", peer="192.0.2.1", host="other.example"))
    assert OwnOrigin("https://broker.example", []).is_elsewhere(scope("broker:3000", **told))


def test_what_a_proxy_says_of_the_scheme_counts_if_it_is_trusted():
    """Behind a terminator that says nothing, every request looks like http."""
    ours = OwnOrigin("https://broker.example", TRUSTED)
    assert not ours.is_elsewhere(scope("broker.example"))
    assert ours.is_elsewhere(scope("broker.example", proto="http"))
    assert not ours.is_elsewhere(scope("broker.example", peer="192.0.2.1", proto="http"))
    assert not ours.is_elsewhere(scope("broker.example", scheme="https", proto="https"))
