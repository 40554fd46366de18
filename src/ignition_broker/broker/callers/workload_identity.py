"""Workloads that show a JWT of a trusted issuer in place of an API key (RFC 7519, RFC 8725).

What a token says decides nothing before its signature is checked, but which issuer's keys to
check it with. Where its header points to or carries a key (``jku``, ``jwk``, ``x5u``, ``x5c``),
nobody looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jws
from joserfc.errors import ClaimError, JoseError, UnsupportedAlgorithmError
from joserfc.jws import CompactSignature, JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from ignition_broker.bounded_map import BoundedMap
from ignition_broker.broker.callers.issuer_keys import IssuerKeys
from ignition_broker.broker.callers.workload_issuers import TrustedIssuer
from ignition_broker.broker.errors import Forbidden, Unauthenticated
from ignition_broker.clock import Clock
from ignition_broker.json_reading import read_json
from ignition_broker.model import Caller, Scope

ALGORITHMS: Final = frozenset(
    {
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
    }
)
"""Signatures with a private key. Neither ``none`` nor an HMAC, whose key could be the public one
(RFC 8725 sections 3.1 and 3.2)."""

LEEWAY_SECONDS: Final = 60
LARGEST_TOKEN_BYTES: Final = 8192
LARGEST_NUMBER_HELD: Final = 10_000
_LONGEST_SUBJECT = 255
_LAST_MOMENT = 10**11
_CHANGING_HEADERS = {"crit", "b64"}
"""They alter what is signed or how it is read (RFC 7515 section 4.1.11, RFC 7797)."""


class SignatureAlgorithms(JWSRegistry):
    """The library's algorithms, by our list alone."""

    max_header_length = 4096

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError
        return self.algorithms[name]


REGISTRY: Final = SignatureAlgorithms(strict_check_header=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A token was good, by the keys of that version."""

    caller: Caller
    keys: IssuerKeys
    version: int


class WorkloadIdentities:
    """Verdicts are held by the token's SHA-256, each for as long as the keys are good that it was
    reached with, and not past the token's own end."""

    def __init__(self, issuers: Sequence[TrustedIssuer], clock: Clock) -> None:
        self._clock = clock
        self._issuers = {issuer.issuer: (issuer, IssuerKeys(issuer, clock)) for issuer in issuers}
        self._verdicts: BoundedMap[bytes, Verdict] = BoundedMap(LARGEST_NUMBER_HELD)

    def admin_rules(self) -> list[bytes]:
        """The hashes of the rules that make workloads admins."""
        return [
            hashed for issuer, _keys in self._issuers.values() for hashed in issuer.admin_rules()
        ]

    def held(self, hashed: bytes) -> Caller | None:
        """The caller, if memory can tell."""
        verdict = self._verdicts.get(hashed)
        if (
            verdict is None
            or verdict.version != verdict.keys.version
            or verdict.caller.is_expired(self._clock.monotonic())
        ):
            return None
        self._verdicts.move_to_end(hashed)
        return verdict.caller

    async def verify(self, token: bytes, hashed: bytes) -> Caller:
        """``hashed``: the token's SHA-256.

        Raises `Unauthenticated`; `Forbidden` for a workload that no rule is about; `Unavailable`
        where the issuer's keys can't be had.
        """
        if not self._issuers:
            raise Unauthenticated(
                "This is a JWT, and no issuer of JWTs is trusted here (BROKER_JWT_ISSUERS)."
            )
        signed = _parsed(token)
        unproved = _claims(signed)
        issuer, keys = self._issuer_of(unproved)
        header = signed.headers()
        key = await keys.find(header.get("kid"), header["alg"])
        version, good_for = keys.version, keys.good_for_seconds
        _check_signature(signed, key)
        # The very bytes that were signed are those that were parsed.
        claims = unproved
        now = self._clock.now().timestamp()
        _check_claims(claims, issuer, now)
        left = min(claims["exp"] + LEEWAY_SECONDS - now, good_for)
        caller = _caller(claims, issuer, self._clock.monotonic() + left)
        self._verdicts.store(hashed, Verdict(caller, keys, version))
        return caller

    def _issuer_of(self, unproved: Mapping[str, Any]) -> tuple[TrustedIssuer, IssuerKeys]:
        named = unproved.get("iss")
        found = self._issuers.get(named) if isinstance(named, str) else None
        if found is None:
            raise _refused("its issuer (iss) is not trusted here")
        return found


def _parsed(token: bytes) -> CompactSignature:
    if len(token) > LARGEST_TOKEN_BYTES:
        raise _refused(f"it is larger than {LARGEST_TOKEN_BYTES} bytes")
    try:
        signed = jws.extract_compact(token, registry=REGISTRY)
    except (JoseError, ValueError, TypeError, RecursionError):
        raise _refused("it is malformed") from None
    header: object = signed.protected
    if not isinstance(header, dict):
        raise _refused("it is malformed")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise _refused("its algorithm (alg) is not one of a private key")
    if not isinstance(kid, str | None):
        raise _refused("its key id (kid) is malformed")
    if not _CHANGING_HEADERS.isdisjoint(header):
        raise _refused("its header has 'crit' or 'b64', of which nothing is understood here")
    return signed


def _claims(signed: CompactSignature) -> dict[str, Any]:
    try:
        claims = read_json(signed.payload)
    except ValueError:
        raise _refused("it is malformed") from None
    if not isinstance(claims, dict):
        raise _refused("it is malformed")
    return claims


def _check_signature(signed: CompactSignature, key: Any) -> None:
    try:
        is_good = jws.validate_compact(signed, key, registry=REGISTRY)
    except (JoseError, ValueError, TypeError):
        # A key of another kind or curve than the algorithm wants.
        is_good = False
    if not is_good:
        raise _refused("its signature is wrong")


def _check_claims(claims: Mapping[str, Any], issuer: TrustedIssuer, now: float) -> None:
    """RFC 7519 section 4.1; ``now`` in seconds since 1970."""
    for name in ("exp", "nbf", "iat"):
        if name in claims and not _is_moment(claims[name]):
            raise _refused(f"its claim '{name}' is no moment")
    registry = JWTClaimsRegistry(
        now=int(now),
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": issuer.issuer},
        aud={"essential": True, "value": issuer.audience},
        exp={"essential": True},
        sub={"essential": True},
    )
    try:
        registry.validate(dict(claims))
    except ClaimError as error:
        raise _refused(f"its claim '{error.claim}': {error.description}") from None
    subject = claims["sub"]
    if len(subject) > _LONGEST_SUBJECT or not (subject.isascii() and subject.isprintable()):
        raise _refused(f"its claim 'sub' is not 1 to {_LONGEST_SUBJECT} printable ASCII characters")
    lifetime = claims["exp"] - claims.get("iat", now)
    if lifetime > issuer.longest_lifetime_seconds:
        raise _refused(
            f"it lives for longer than {issuer.longest_lifetime_seconds} s; ask the issuer for a "
            "shorter life"
        )


def _is_moment(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value < _LAST_MOMENT  # type: ignore[operator]


def _caller(claims: Mapping[str, Any], issuer: TrustedIssuer, dies_at: float) -> Caller:
    name = f"jwt:{issuer.label}/{claims['sub']}"
    rule = issuer.rule_for(claims)
    if rule is None:
        raise Forbidden(f"No rule in BROKER_JWT_ISSUERS is about {name}.")
    return Caller(
        name=name,
        scopes=rule.granted,
        tenants=tuple(rule.tenants),
        dies_at=dies_at,
        paths=None if rule.paths is None else tuple(rule.paths),
        rule_hash=issuer.hash_of(rule) if Scope.ADMIN in rule.granted else b"",
    )


def _refused(reason: str) -> Unauthenticated:
    return Unauthenticated(f"This JWT was refused: {reason}.")
