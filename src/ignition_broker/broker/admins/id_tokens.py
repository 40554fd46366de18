"""What an ID token says, once its signature and claims are good; nothing is fetched here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ignition_broker.json_reading import read_json
from ignition_broker.printable import printable

if TYPE_CHECKING:
    from ignition_broker.jwks.public_keys import PublicKey

LEEWAY_SECONDS: Final = 60
_LONGEST_NAME = 100


class IdTokenRefused(Exception):
    """Says which claim is wrong, and never what it was."""


class KeyUnknown(IdTokenRefused):
    """No key of that id is known: the provider may have changed its keys."""


@dataclass(frozen=True, slots=True)
class ExpectedToken:
    """``authenticated_since``: the moment before which a proof of identity is too old, seconds
    since 1970; None where any will do."""

    issuer: str
    client_id: str
    nonce: str
    authenticated_since: float | None


@dataclass(frozen=True, slots=True)
class Claims:
    """``auth_time`` is None where the provider did not say."""

    subject: str
    name: str | None
    groups: tuple[str, ...]
    auth_time: float | None


def judge_id_token(
    token: str, keys: Sequence[PublicKey], expected: ExpectedToken, *, groups_claim: str, now: float
) -> Claims:
    """OpenID Connect Core 1.0 section 3.1.3.7; ``now`` in seconds since 1970.

    Raises `IdTokenRefused`, or `KeyUnknown` where newer keys may help.
    """
    claims = _verified(token, keys)
    if claims.get("iss") != expected.issuer:
        raise IdTokenRefused("iss: it is of another issuer.")
    _check_audience(claims, expected.client_id)
    if _seconds(claims, "exp") <= now - LEEWAY_SECONDS:
        raise IdTokenRefused("exp: it has expired.")
    if _seconds(claims, "iat") > now + LEEWAY_SECONDS:
        raise IdTokenRefused("iat: it was issued in the future; compare the clocks.")
    if "nbf" in claims and _seconds(claims, "nbf") > now + LEEWAY_SECONDS:
        raise IdTokenRefused("nbf: it is not valid yet; compare the clocks.")
    if claims.get("nonce") != expected.nonce:
        raise IdTokenRefused("nonce: it answers another sign-in.")
    auth_time = _seconds(claims, "auth_time") if "auth_time" in claims else None
    _check_freshness(auth_time, expected.authenticated_since)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255 or not subject.isprintable():
        raise IdTokenRefused("sub: it names nobody.")
    return Claims(subject, _name(claims), _groups(claims.get(groups_claim)), auth_time)


def _verified(token: str, keys: Sequence[PublicKey]) -> dict[str, Any]:
    # Here, since few have an identity provider, and it takes a while to load.
    from ignition_broker.jwks.public_keys import pick_key
    from ignition_broker.jwks.signatures import TokenRefused, check_signature, parse_token

    try:
        signed = parse_token(token.encode())
        key = pick_key(keys, signed.kid, signed.algorithm)
        if key is None:
            raise KeyUnknown("the signature: its key is not among the provider's, or too weak.")
        check_signature(signed, key)
    except TokenRefused as error:
        raise IdTokenRefused(f"the signature: {error}.") from error
    except UnicodeError:
        raise IdTokenRefused("the signature: it is malformed.") from None
    return signed.claims


def _check_audience(claims: Mapping[str, Any], client_id: str) -> None:
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if client_id not in audiences:
        raise IdTokenRefused("aud: it is meant for another client.")
    authorized = claims.get("azp")
    if authorized != client_id and (authorized is not None or len(audiences) > 1):
        raise IdTokenRefused("azp: it was given to another client.")


def _check_freshness(auth_time: float | None, since: float | None) -> None:
    if since is None:
        return
    if auth_time is None:
        raise IdTokenRefused(
            "auth_time: it is missing, so nobody knows whether you signed in anew; the provider "
            "has to send it."
        )
    if auth_time < since - LEEWAY_SECONDS:
        raise IdTokenRefused("auth_time: the provider did not ask you to sign in anew.")


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e11:
        raise IdTokenRefused(f"{name}: it is no moment.")
    return float(value)


def _groups(claim: object) -> tuple[str, ...]:
    """A list of names; some providers send a single one bare."""
    names = claim if isinstance(claim, list) else [claim]
    return tuple(name for name in names if isinstance(name, str))


def _name(claims: Mapping[str, Any]) -> str | None:
    """For people to read: nothing is decided by it."""
    for claim in ("email", "preferred_username", "name"):
        value = claims.get(claim)
        if isinstance(value, str) and value.strip():
            return printable(value.strip(), _LONGEST_NAME)
    return None


def key_set(document: bytes) -> tuple[PublicKey, ...]:
    """The keys for signatures in a JWK set (RFC 7517 section 5).

    Raises `ValueError` for anything else, and for a set without a single key.
    """
    from ignition_broker.jwks.public_keys import usable_keys

    parsed = read_json(document)
    keys = usable_keys(parsed)
    if not keys and not _has_a_key(parsed):
        raise ValueError("no JWK set")
    return keys


def _has_a_key(document: object) -> bool:
    members = document.get("keys") if isinstance(document, dict) else None
    return isinstance(members, list) and any(isinstance(member, dict) for member in members)
