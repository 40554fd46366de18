"""Workloads that show a JWT of a trusted issuer in place of an API key (RFC 7519, RFC 8725).

What a token says decides nothing before its signature is checked, but which issuer's keys to
check it with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from joserfc.errors import ClaimError
from joserfc.jwt import JWTClaimsRegistry

from ignition_broker.bounded_map import BoundedMap
from ignition_broker.broker.callers.workload_issuers import TrustedIssuer
from ignition_broker.broker.callers.workload_keys import WorkloadKeys
from ignition_broker.broker.errors import Forbidden, Unauthenticated
from ignition_broker.clock import Clock
from ignition_broker.jwks.signatures import (
    SignedToken,
    TokenRefused,
    check_signature,
    parse_token,
)
from ignition_broker.model import Caller, Scope
from ignition_broker.outbound.egress import Egress

LEEWAY_SECONDS: Final = 60
LARGEST_TOKEN_BYTES: Final = 8192
LARGEST_NUMBER_HELD: Final = 10_000
_LONGEST_SUBJECT = 255
_LAST_MOMENT = 10**11


@dataclass(frozen=True, slots=True)
class Verdict:
    """A token was good, by the keys of that version."""

    caller: Caller
    keys: WorkloadKeys
    version: int


class WorkloadIdentities:
    """Verdicts are held by the token's SHA-256, each for as long as the keys are good that it was
    reached with, and not past the token's own end."""

    def __init__(
        self, issuers: Sequence[TrustedIssuer], clock: Clock, egress: Egress | None = None
    ) -> None:
        self._clock = clock
        self._issuers = {
            issuer.issuer: (issuer, WorkloadKeys(issuer, clock, egress or Egress()))
            for issuer in issuers
        }
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
        issuer, keys = self._issuer_of(signed.claims)
        key = await keys.find(signed.kid, signed.algorithm)
        version, good_for = keys.version, keys.good_for_seconds
        try:
            check_signature(signed, key)
        except TokenRefused as error:
            raise _refused(str(error)) from None
        claims = signed.claims
        now = self._clock.now().timestamp()
        _check_claims(claims, issuer, now)
        left = min(claims["exp"] + LEEWAY_SECONDS - now, good_for)
        caller = _caller(claims, issuer, self._clock.monotonic() + left)
        self._verdicts.store(hashed, Verdict(caller, keys, version))
        return caller

    def _issuer_of(self, unproved: Mapping[str, Any]) -> tuple[TrustedIssuer, WorkloadKeys]:
        named = unproved.get("iss")
        found = self._issuers.get(named) if isinstance(named, str) else None
        if found is None:
            raise _refused("its issuer (iss) is not trusted here")
        return found


def _parsed(token: bytes) -> SignedToken:
    if len(token) > LARGEST_TOKEN_BYTES:
        raise _refused(f"it is larger than {LARGEST_TOKEN_BYTES} bytes")
    try:
        return parse_token(token)
    except TokenRefused as error:
        raise _refused(str(error)) from None


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
