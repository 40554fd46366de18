"""The one list of signature algorithms, and joserfc's registry restricted to it."""

from __future__ import annotations

from typing import Any, Final

from joserfc.errors import UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry

ALGORITHMS: Final = frozenset(
    {
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
    }
)
"""Signatures with a private key. Neither ``none`` nor an HMAC, whose key could be the public one
(RFC 8725 sections 3.1 and 3.2)."""


class SignatureAlgorithms(JWSRegistry):
    """The library's algorithms, by our list alone."""

    max_header_length = 4096

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError
        return self.algorithms[name]


# Header parameters that nobody here knows are ignored (RFC 7515 section 4), but see `signatures`.
REGISTRY: Final = SignatureAlgorithms(strict_check_header=False)
