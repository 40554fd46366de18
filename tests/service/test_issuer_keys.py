"""The keys of an issuer of JWTs, fetched from a real server; time is the test's own."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from starlette.responses import JSONResponse, Response
from tests.service.jwt_issuer import AUDIENCE, JwtIssuer, redirect_to, rsa, signed_by_hmac
from tests.unit.values import ManualClock

from ignition_broker.broker.callers.workload_identity import WorkloadIdentities
from ignition_broker.broker.callers.workload_issuers import TrustedIssuer
from ignition_broker.broker.callers.workload_keys import (
    LIFETIME_SECONDS,
    PAUSE_SECONDS,
    STALE_SECONDS,
    TIMEOUT_SECONDS,
)
from ignition_broker.broker.errors import Unauthenticated, Unavailable
from ignition_broker.model import Caller

RULES = [{"match": {"sub": "*"}, "scopes": ["token"], "tenants": ["acme"]}]


@pytest.fixture(scope="module")
def server():
    issuer = JwtIssuer()
    yield issuer
    issuer.hang_up()


@pytest.fixture
def issuer(server):
    server.reset()
    server.requests.clear()
    yield server
    server.reset()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(time.time())


class Broker:
    """As much of it as knows tokens."""

    def __init__(self, issuer: JwtIssuer, clock: ManualClock, **more: object) -> None:
        fields = {"issuer": issuer.issuer, "audience": AUDIENCE, "rules": RULES, **more}
        self._identities = WorkloadIdentities([TrustedIssuer.model_validate(fields)], clock)

    async def admit(self, token: str) -> Caller:
        hashed = hashlib.sha256(token.encode()).digest()
        return self._identities.held(hashed) or await self._identities.verify(
            token.encode(), hashed
        )

    async def refusal(self, token: str) -> str:
        with pytest.raises(Unauthenticated) as refused:
            await self.admit(token)
        return refused.value.detail


@pytest.fixture
def broker(issuer, clock) -> Broker:
    return Broker(issuer, clock)


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("RS512", rsa("two")),
        ("PS256", rsa("two")),
        ("ES256", ECKey.generate_key("P-256", {"kid": "two"})),
        ("ES384", ECKey.generate_key("P-384", {"kid": "two", "alg": "ES384"})),
        ("Ed25519", OKPKey.generate_key("Ed25519", {"kid": "two"})),
        ("EdDSA", OKPKey.generate_key("Ed25519", {"kid": "two"})),
    ],
)
@pytest.mark.filterwarnings("ignore:EdDSA")
async def test_signatures_by_any_kind_of_private_key_are_good(broker, issuer, algorithm, key):
    issuer.keys.append(key.as_dict(private=False))
    caller = await broker.admit(issuer.token(key=key, header={"alg": algorithm}))
    assert caller.name == f"jwt:localhost:{issuer.port}/invoicing"


async def test_a_token_without_a_key_id_is_good_where_there_is_one_key_alone(issuer, clock):
    token = issuer.token(header={"kid": None})
    assert await Broker(issuer, clock).admit(token)
    issuer.keys.append(rsa("two").as_dict(private=False))
    assert "no such key" in await Broker(issuer, clock).refusal(token)


@pytest.mark.parametrize(
    "change",
    [
        {"use": "enc"},
        {"use": 7},
        {"key_ops": ["sign"]},
        {"key_ops": 7},
        {"alg": "RS512"},
        {"kty": "EC"},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "AKP"},
        {"kty": ["RSA"]},
        {"kty": {}},
        {"n": 7},
        {"n": "!" * 400},
        {"e": ""},
        {"kid": 7},
    ],
)
async def test_a_key_that_is_not_meant_for_it_verifies_nothing(broker, issuer, change):
    """And does not spoil the keys beside it."""
    other = rsa("two")
    issuer.keys.insert(0, {**other.as_dict(private=False), **change})
    issuer.keys.insert(0, "no key")
    assert "no such key" in await broker.refusal(issuer.token(key=other))
    assert await broker.admit(issuer.token())


async def test_an_rsa_key_that_is_too_short_verifies_nothing(broker, issuer):
    with pytest.warns(match="2048"):
        short = RSAKey.generate_key(1024, {"kid": "short"})
    issuer.keys.append(short.as_dict(private=False))
    assert "no such key" in await broker.refusal(issuer.token(key=short))


async def test_a_shared_secret_in_the_key_set_is_passed_over(broker, issuer):
    secret = OctKey.generate_key(256, {"kid": "shared"})
    issuer.keys.append(secret.as_dict(private=True))
    for algorithm in ("HS256", "RS256"):
        header = {"alg": algorithm, "kid": "shared"}
        assert await broker.refusal(
            signed_by_hmac(header, issuer.claims(sub="x"), secret.raw_value)
        )


async def test_a_private_key_that_slipped_into_the_set_is_read_as_public(broker, issuer):
    issuer.keys = [issuer.key.as_dict(private=True)]
    assert await broker.admit(issuer.token())


async def test_many_callers_at_a_start_cause_one_fetch(broker, issuer):
    issuer.delay_seconds = 0.2
    tokens = [issuer.token(jti=str(number)) for number in range(20)]
    await asyncio.gather(*(broker.admit(token) for token in tokens))
    assert issuer.fetches() == 1


async def test_a_caller_that_leaves_takes_no_fetch_away_from_the_others(broker, issuer):
    issuer.delay_seconds = 0.3
    impatient = asyncio.create_task(broker.admit(issuer.token(jti="1")))
    await asyncio.sleep(0.1)
    patient = asyncio.create_task(broker.admit(issuer.token(jti="2")))
    impatient.cancel()
    assert await patient
    assert issuer.fetches() == 1


async def test_made_up_key_ids_cause_a_fetch_every_ten_seconds_at_most(broker, issuer, clock):
    assert await broker.admit(issuer.token())
    for number in range(50):
        assert await broker.refusal(issuer.token(header={"kid": f"made-up-{number}"}))
    assert issuer.fetches() == 1
    clock.at += PAUSE_SECONDS
    for number in range(50):
        assert await broker.refusal(issuer.token(header={"kid": f"made-up-{number}"}))
    assert issuer.fetches() == 2


async def test_a_new_key_is_fetched_when_a_token_names_it(broker, issuer, clock):
    assert await broker.admit(issuer.token())
    new = rsa("new")
    issuer.keys.append(new.as_dict(private=False))
    clock.at += PAUSE_SECONDS
    assert await broker.admit(issuer.token(key=new))
    assert await broker.admit(issuer.token())


async def test_a_withdrawn_key_ends_its_tokens_within_five_minutes(broker, issuer, clock):
    """Those that are in use all the time too, whose verdicts are held."""
    token = issuer.token(exp=int(clock.at) + 3600)
    assert await broker.admit(token)
    clock.at += LIFETIME_SECONDS - 1
    issuer.keys = [rsa("new").as_dict(private=False)]
    assert await broker.admit(token)
    late = issuer.token(jti="late", exp=int(clock.at) + 3600)
    assert await broker.admit(late)
    clock.at += 12
    assert "no such key" in await broker.refusal(token)
    assert "no such key" in await broker.refusal(late)


async def test_a_withdrawn_key_ends_its_tokens_as_soon_as_the_new_set_is_read(
    broker, issuer, clock
):
    token = issuer.token()
    assert await broker.admit(token)
    new = rsa("new")
    issuer.keys = [new.as_dict(private=False)]
    clock.at += PAUSE_SECONDS
    assert await broker.admit(issuer.token(key=new))
    assert "no such key" in await broker.refusal(token)


async def test_all_keys_may_be_withdrawn(broker, issuer, clock):
    token = issuer.token(exp=int(clock.at) + 3600)
    assert await broker.admit(token)
    issuer.keys = []
    clock.at += LIFETIME_SECONDS + 1
    assert "no such key" in await broker.refusal(token)


async def test_while_the_issuer_is_away_its_keys_are_believed_for_a_day(broker, issuer, clock):
    assert await broker.admit(issuer.token())
    issuer.answer = Response("down", 503)

    def token() -> str:
        return issuer.token(iat=int(clock.at), exp=int(clock.at) + 600, jti=str(clock.at))

    for _ in range(3):
        clock.at += LIFETIME_SECONDS + 1
        assert await broker.admit(token())
    with pytest.raises(Unavailable):
        await broker.admit(issuer.token(key=rsa("new"), iat=int(clock.at)))
    clock.at += STALE_SECONDS
    with pytest.raises(Unavailable):
        await broker.admit(token())
    issuer.answer = None
    clock.at += PAUSE_SECONDS
    assert await broker.admit(token())


async def test_a_slow_issuer_holds_callers_up_for_a_second_where_keys_are_held(
    broker, issuer, clock
):
    assert await broker.admit(issuer.token())
    clock.at += LIFETIME_SECONDS + 1
    issuer.delay_seconds = 3
    began = time.monotonic()
    assert await broker.admit(issuer.token(jti="late"))
    assert time.monotonic() - began < 2
    await asyncio.sleep(2.5)


async def test_a_slow_issuer_is_given_up(broker, issuer):
    issuer.delay_seconds = 30
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await broker.admit(issuer.token())
    assert time.monotonic() - began < TIMEOUT_SECONDS + 2


@pytest.mark.parametrize(
    "answer",
    [
        Response("<html>", 200),
        JSONResponse([]),
        JSONResponse({"keys": {}}),
        Response("[" * 100_000, 200),
        Response("x", 500),
        redirect_to("/elsewhere"),
        JSONResponse({"keys": [], "padding": "x" * 300_000}),
    ],
)
async def test_an_answer_that_is_no_key_set_is_believed_in_nothing(broker, issuer, answer):
    issuer.answer = answer
    with pytest.raises(Unavailable):
        await broker.admit(issuer.token())
    assert issuer.fetches("/elsewhere") == 0


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://issuer.example.com"},
        {"issuer": None},
        {"jwks_uri": "http://issuer.example.com/jwks"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": 7},
    ],
)
async def test_a_discovery_document_of_another_or_with_an_unsafe_address_is_not_followed(
    broker, issuer, document
):
    issuer.document = document
    with pytest.raises(Unavailable):
        await broker.admit(issuer.token())
    assert issuer.fetches() == 0


async def test_keys_at_a_given_address_need_no_discovery(issuer, clock):
    broker = Broker(issuer, clock, jwks_url=f"{issuer.issuer}/elsewhere")
    assert await broker.admit(issuer.token())
    assert [path for path, _authorization in issuer.requests] == ["/elsewhere"]


async def test_a_private_authority_and_a_token_open_the_way_to_the_keys(clock, tmp_path):
    """As in a Kubernetes cluster."""
    authority, certificate, key = certificates(tmp_path)
    issuer = JwtIssuer(ssl_certfile=certificate, ssl_keyfile=key)
    (tmp_path / "token").write_text("first\n")
    try:
        with pytest.raises(Unavailable):
            await Broker(issuer, clock).admit(issuer.token())
        assert issuer.requests == []
        broker = Broker(issuer, clock, ca_file=str(authority), token_file=str(tmp_path / "token"))
        assert await broker.admit(issuer.token())
        assert {authorization for _path, authorization in issuer.requests} == {"Bearer first"}
        (tmp_path / "token").write_text("second\n")
        clock.at += LIFETIME_SECONDS + 1
        issuer.requests.clear()
        assert await broker.admit(issuer.token(jti="2", iat=int(clock.at)))
        assert {authorization for _path, authorization in issuer.requests} == {"Bearer second"}
    finally:
        issuer.hang_up()


async def test_an_address_that_discovery_names_gets_no_token(issuer, clock, tmp_path):
    (tmp_path / "token").write_text("mine")
    elsewhere = JwtIssuer()
    elsewhere.keys = issuer.keys
    issuer.document = {"jwks_uri": f"{elsewhere.issuer}/jwks"}
    try:
        broker = Broker(issuer, clock, token_file=str(tmp_path / "token"))
        assert await broker.admit(issuer.token())
    finally:
        elsewhere.hang_up()
    assert issuer.requests == [("/.well-known/openid-configuration", "Bearer mine")]
    assert elsewhere.requests == [("/jwks", None)]


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """An authority's certificate, and one for localhost with its key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    ssl.create_default_context(cafile=folder / "ca.crt")
    return folder / "ca.crt", folder / "ca.crt", folder / "tls.key"
