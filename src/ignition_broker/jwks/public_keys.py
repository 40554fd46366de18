"""Public keys for signatures out of a JWK set (RFC 7517)."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Iterable
from typing import Any, Final

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from ignition_broker.json_reading import read_json

MOST_KEYS: Final = 100
SHORTEST_RSA_BITS: Final = 2048
"""RFC 7518 section 3.3."""

_CURVES: Final = {
    "ES256": {"P-256"},
    "ES384": {"P-384"},
    "ES512": {"P-521"},
    "Ed25519": {"Ed25519"},
    "EdDSA": {"Ed25519", "Ed448"},
}
"""RFC 7518 section 3.4, RFC 8037 section 3.1. Whatever is not in here is RSA's."""
_KNOWN_CURVES: Final = frozenset().union(*_CURVES.values())

PublicKey = RSAKey | ECKey | OKPKey

log = structlog.get_logger(__name__)


class NoKeySet(ValueError):
    """The document is no JWK set."""


def usable_keys(document: object) -> tuple[PublicKey, ...]:
    """Others in the set are passed over (RFC 7517 section 5): those that are not meant for
    signatures, that can't be read, or that are too weak to prove anything.

    Raises `NoKeySet`.
    """
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise NoKeySet("no JWK set")
    keys = [_public_key(member) for member in members[:MOST_KEYS]]
    return tuple(key for key in keys if key is not None)


def parse_key_set(document: bytes) -> tuple[PublicKey, ...]:
    """`usable_keys` of a JSON text. Raises `ValueError`."""
    return usable_keys(read_json(document))


def pick_key(keys: Iterable[PublicKey], kid: str | None, algorithm: str) -> PublicKey | None:
    """The key of that id that is meant for signatures by ``algorithm``; without an id, the only
    one.

    Keys of several kinds may share an id (RFC 7517 section 4.5). Where none is of the algorithm's
    kind, one of another is returned, by which no signature is good.
    """
    named = [key for key in keys if kid is None or key.kid == kid]
    meant = [key for key in named if key.alg in {None, algorithm}]
    fitting = [key for key in meant if _fits(key, algorithm)] or meant
    return fitting[0] if fitting and (kid is not None or len(fitting) == 1) else None


def _fits(key: PublicKey, algorithm: str) -> bool:
    """By kind and curve (RFC 8725 section 3.1)."""
    curves = _CURVES.get(algorithm)
    if isinstance(key, RSAKey):
        return curves is None
    return curves is not None and key.curve_name in curves


def _public_key(member: object) -> PublicKey | None:
    if not isinstance(member, dict) or member.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    operations = member.get("key_ops", ["verify"])
    if member.get("use", "sig") != "sig" or "verify" not in _listed(operations):
        return None
    try:
        weakness = _weakness(member)
        if weakness is not None:
            log.warning("weak_key_passed_over", kid=str(member.get("kid"))[:100], reason=weakness)
            return None
        key = JWKRegistry.import_key(_without_private_part(member))
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return key if isinstance(key, RSAKey | ECKey | OKPKey) else None


def _weakness(member: dict[str, Any]) -> str | None:
    """Raises `ValueError`, `TypeError` or `KeyError` for a member that can't be read."""
    if member["kty"] != "RSA":
        curve = member["crv"]
        return None if curve in _KNOWN_CURVES else f"curve {str(curve)[:20]}"
    # By the number itself: leading zeros make its text as long as one likes.
    modulus = int.from_bytes(urlsafe_b64decode(member["n"] + "=="))
    if modulus.bit_length() < SHORTEST_RSA_BITS:
        return f"RSA of {modulus.bit_length()} bits"
    return None if modulus % 2 else "RSA by an even modulus"


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _without_private_part(member: dict[str, Any]) -> dict[str, Any]:
    """And without what says more than which key it is, which a library might act on."""
    kept = {"kty", "n", "e", "crv", "x", "y", "kid", "alg"}
    return {name: value for name, value in member.items() if name in kept}
