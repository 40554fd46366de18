"""What is accepted from an issuer's documents."""

from __future__ import annotations

import pytest
from joserfc.errors import UnsupportedAlgorithmError
from joserfc.jwk import RSAKey

from ignition_broker.jwks.algorithms import REGISTRY
from ignition_broker.jwks.discovery import FetchFailed, jwks_url_of
from ignition_broker.jwks.public_keys import usable_keys

ISSUER = "https://issuer.example.com"


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example.com/jwks",
        "http://localhost.example.com/jwks",
        "https://user:word@issuer.example.com/jwks",
        "https://issuer.example.com:port/jwks",
        "https:///jwks",
        "file:///etc/passwd",
        "/jwks",
        "",
        7,
        None,
    ],
)
def test_an_unsafe_address_of_keys_is_not_followed(url):
    with pytest.raises(FetchFailed):
        jwks_url_of({"issuer": ISSUER, "jwks_uri": url}, ISSUER)


@pytest.mark.parametrize(
    "url", ["https://keys.example.com/jwks?v=1", "http://localhost:8080/jwks", "http://[::1]/jwks"]
)
def test_https_and_loopback_are_followed(url):
    assert jwks_url_of({"issuer": ISSUER, "jwks_uri": url}, ISSUER) == url


def test_a_private_key_that_slipped_into_the_set_is_not_kept():
    private = RSAKey.generate_key(2048, {"kid": "one"})
    (kept,) = usable_keys({"keys": [private.as_dict(private=True)]})
    assert not kept.is_private
    assert kept.kid == "one"


@pytest.mark.parametrize("name", ["none", "HS256", "HS512", "ES256K", "RSA-OAEP", ""])
def test_no_algorithm_beside_those_of_private_keys_is_found_at_all(name):
    with pytest.raises(UnsupportedAlgorithmError):
        REGISTRY.get_alg(name)


def test_no_more_keys_are_read_than_an_issuer_has():
    public = RSAKey.generate_key(2048, {"kid": "one"}).as_dict(private=False)
    assert len(usable_keys({"keys": [public] * 1000})) == 100
