"""A signed token (JWS, compact): parsed first, then checked with a key of its issuer's.

Where its header points to or carries a key (``jku``, ``jwk``, ``x5u``, ``x5c``), nobody looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jws import CompactSignature

from ignition_broker.json_reading import check_depth, read_json
from ignition_broker.jwks.algorithms import ALGORITHMS, REGISTRY
from ignition_broker.jwks.public_keys import PublicKey

_CHANGING_HEADERS: Final = {"crit", "b64"}
"""They alter what is signed or how it is read (RFC 7515 section 4.1.11, RFC 7797)."""


class TokenRefused(Exception):
    """Says what is wrong with the token, in words that follow a colon."""


@dataclass(frozen=True, slots=True)
class SignedToken:
    """``claims`` prove nothing before `check_signature`."""

    algorithm: str
    kid: str | None
    claims: dict[str, Any]
    compact: CompactSignature


def parse_token(token: bytes) -> SignedToken:
    """Raises `TokenRefused`."""
    try:
        signed = jws.extract_compact(token, registry=REGISTRY)
        check_depth(signed.protected)
    except (JoseError, ValueError, TypeError, RecursionError):
        raise TokenRefused("it is malformed") from None
    header: object = signed.protected
    if not isinstance(header, dict):
        raise TokenRefused("it is malformed")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise TokenRefused("its algorithm (alg) is not one of a private key")
    if not isinstance(kid, str | None):
        raise TokenRefused("its key id (kid) is malformed")
    if not _CHANGING_HEADERS.isdisjoint(header):
        raise TokenRefused("its header has 'crit' or 'b64', of which nothing is understood here")
    try:
        # The very bytes that were signed.
        claims = read_json(signed.payload)
    except ValueError:
        raise TokenRefused("it is malformed") from None
    if not isinstance(claims, dict):
        raise TokenRefused("it is malformed")
    return SignedToken(algorithm, kid, claims, signed)


def check_signature(token: SignedToken, key: PublicKey) -> None:
    """Raises `TokenRefused`."""
    try:
        is_good = jws.validate_compact(token.compact, key, registry=REGISTRY)
    except (JoseError, ValueError, TypeError):
        # A key of another kind or curve than the algorithm wants.
        is_good = False
    if not is_good:
        raise TokenRefused("its signature is wrong")
