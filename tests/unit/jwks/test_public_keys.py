"""Which keys are accepted, for JWTs and ID tokens."""

from __future__ import annotations

import base64
import itertools
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from ignition_broker.broker.admins.id_tokens import (
    ExpectedToken,
    IdTokenRefused,
    KeyUnknown,
    judge_id_token,
    key_set,
)
from ignition_broker.jwks.public_keys import NoKeySet, pick_key, usable_keys

GOOD = RSAKey.generate_key(2048, {"kid": "good"})
EXPECTED = ExpectedToken("https://login.example.com", "broker", "n", None)


def number(value: int, least_bytes: int = 0) -> str:
    raw = value.to_bytes(max(least_bytes, (value.bit_length() + 7) // 8))
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def short_rsa(bits: int, *, least_bytes: int = 0, **more: object) -> tuple[object, dict]:
    private = rsa.generate_private_key(65537, bits)
    public = private.public_key().public_numbers()
    member = {"kty": "RSA", "n": number(public.n, least_bytes), "e": number(public.e), **more}
    return private, member


def claims(**more: object) -> dict[str, object]:
    return {
        "iss": EXPECTED.issuer,
        "aud": "broker",
        "nonce": "n",
        "sub": "jo",
        "iat": 1,
        "exp": 9,
        **more,
    }


def judged(token: str, *members: dict) -> object:
    keys = key_set(json.dumps({"keys": members}).encode())
    return judge_id_token(token, keys, EXPECTED, groups_claim="groups", now=5.0)


@pytest.mark.parametrize("bits", [1024, 1536, 2040])
@pytest.mark.parametrize("least_bytes", [0, 256, 512], ids=["as it is", "padded", "padded twice"])
def test_an_rsa_key_of_less_than_2048_bits_is_passed_over(bits, least_bytes):
    """Leading zeros make its text as long as that of a long one."""
    _private, member = short_rsa(bits, least_bytes=least_bytes, kid="short")
    good = GOOD.as_dict(private=False)
    assert [key.kid for key in usable_keys({"keys": [member, good]})] == ["good"]


@pytest.mark.filterwarnings("ignore:Key size")
def test_no_id_token_is_signed_by_a_short_key():
    private, member = short_rsa(1024, kid="short", alg="RS256", use="sig")
    token = jwt.encode({"alg": "RS256", "kid": "short"}, claims(), RSAKey.import_key(private))
    with pytest.raises(KeyUnknown):
        judged(token, member, GOOD.as_dict(private=False))


@pytest.mark.parametrize("member", [
    {"kty": "EC", "crv": "secp256k1", "x": "A" * 43, "y": "A" * 43},
    {"kty": "EC", "crv": "P-192", "x": "A" * 32, "y": "A" * 32},
    {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43},
    {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
    {"kty": "RSA", "n": number((1 << 2047) + 1), "e": number(1)},
    {"kty": "RSA", "n": number(1 << 2047), "e": number(3)},
    {"kty": "RSA", "n": "AAAA", "e": "AQAB"},
    {"kty": "oct", "k": "A" * 43},
])  # fmt: skip
def test_a_key_that_proves_nothing_is_passed_over(member):
    assert usable_keys({"keys": [member]}) == ()


KINDS = {
    "RS256 RS384 RS512 PS256 PS384 PS512": RSAKey.generate_key(2048, {"kid": "one"}),
    "ES256": ECKey.generate_key("P-256", {"kid": "one"}),
    "ES384": ECKey.generate_key("P-384", {"kid": "one"}),
    "ES512": ECKey.generate_key("P-521", {"kid": "one"}),
    "EdDSA Ed25519": OKPKey.generate_key("Ed25519", {"kid": "one"}),
}


def test_of_keys_with_one_id_the_one_of_the_algorithms_kind_is_taken():
    for turn in range(len(KINDS)):
        order = [*KINDS.values()][turn:] + [*KINDS.values()][:turn]
        keys = usable_keys({"keys": [key.as_dict(private=False) for key in order]})
        for algorithms, expected in KINDS.items():
            for algorithm in algorithms.split():
                picked = pick_key(keys, "one", algorithm)
                assert picked.as_dict() == expected.as_dict(private=False), algorithm
                assert pick_key(keys, "two", algorithm) is None


def test_without_an_id_the_only_one_of_the_algorithms_kind_is_taken():
    keys = usable_keys({"keys": [key.as_dict(private=False) for key in KINDS.values()]})
    assert pick_key(keys, None, "RS256").key_type == "RSA"
    assert pick_key([*keys, *keys], None, "RS256") is None


@pytest.mark.filterwarnings("ignore")
def test_a_key_of_another_kind_verifies_nothing():
    for (signing, key), (others, other) in itertools.permutations(KINDS.items(), 2):
        algorithm = signing.split()[0]
        token = jwt.encode({"alg": algorithm, "kid": "one"}, claims(), key, algorithms=[algorithm])
        with pytest.raises(IdTokenRefused):
            judged(token, other.as_dict(private=False))
        head = {"alg": others.split()[0], "kid": "one"}
        part = base64.urlsafe_b64encode(json.dumps(head).encode()).rstrip(b"=").decode()
        with pytest.raises(IdTokenRefused):
            judged(f"{part}.{token.partition('.')[2]}", key.as_dict(private=False))


@pytest.mark.parametrize("header", [
    {"alg": "HS256", "kid": "good"},
    {"alg": "none"},
    {"alg": "ES256", "kid": "good"},
    {"alg": ["RS256"], "kid": "good"},
    {"alg": "RS256", "kid": 7},
    {"alg": "RS256", "kid": "good", "crit": ["b64"], "b64": False},
    ["RS256"],
])  # fmt: skip
def test_an_id_token_that_is_signed_in_another_way_is_refused(header):
    good = jwt.encode({"alg": "RS256", "kid": "good"}, claims(), GOOD)
    _header, payload, signature = good.split(".")
    part = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    with pytest.raises(IdTokenRefused):
        judged(f"{part}.{payload}.{signature}", GOOD.as_dict(private=False))
    assert judged(good, GOOD.as_dict(private=False))


@pytest.mark.parametrize("depth", [60, 400, 2000, 30_000])
@pytest.mark.parametrize("place", ["claims", "header"])
def test_an_id_token_that_is_nested_deeply_is_refused(depth, place):
    nested = b'{"a":' * depth + b"1" + b"}" * depth
    payload = json.dumps(claims()).encode()
    if place == "claims":
        payload = payload[:-1] + b',"deep":' + nested + b"}"
        header = b'{"alg": "RS256", "kid": "good"}'
    else:
        header = b'{"alg": "RS256", "kid": "good", "deep":' + nested + b"}"
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload))
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    signature = GOOD.private_key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    token = signed.decode() + "." + base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    with pytest.raises(IdTokenRefused):
        judged(token, GOOD.as_dict(private=False))


@pytest.mark.parametrize("document", [b"[" * 100_000, b'{"keys": [' + b"[" * 60 + b"]" * 62 + b"}"])
def test_a_deeply_nested_key_set_is_refused(document):
    with pytest.raises(ValueError):  # noqa: PT011  # the kind is what it is about
        key_set(document)


def test_an_invalid_key_set_is_refused():
    for document in (None, [], {}, {"keys": {}}):
        with pytest.raises(NoKeySet):
            usable_keys(document)
