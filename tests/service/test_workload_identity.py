"""Workloads that call with a JWT in place of a key; the issuer is a real server."""

from __future__ import annotations

import json
import time

import httpx
import pytest
from tests.conftest import sql, wait_until
from tests.service.jwt_issuer import (
    AUDIENCE,
    JwtIssuer,
    encoded,
    rsa,
    signed_by_hand,
    signed_by_hmac,
    unsigned,
)

RULES = [
    {"match": {"sub": "invoicing"}, "scopes": ["token"], "tenants": ["acme", "beta-*"]},
    {
        "match": {"sub": "held", "kubernetes.io": {"namespace": ["billing", "ops"]}},
        "scopes": ["proxy"],
        "tenants": ["*"],
        "paths": ["GET /v1/*"],
    },
    {"match": {"groups": "admins"}, "scopes": ["admin"]},
    {"match": {"sub": "repo:acme/*"}, "scopes": ["token"], "tenants": ["*"]},
]
PAUSE_SECONDS = 10


@pytest.fixture(scope="module")
def issuer():
    server = JwtIssuer()
    yield server
    server.hang_up()


@pytest.fixture(scope="module")
def more_settings(issuer):
    trusted = {"issuer": issuer.issuer, "audience": AUDIENCE, "name": "kube", "rules": RULES}
    return {"BROKER_JWT_ISSUERS": json.dumps([trusted]), "BROKER_FAILED_ATTEMPTS": "0"}


@pytest.fixture(autouse=True)
def _issuer_behaves(issuer):
    issuer.reset()
    yield
    issuer.reset()


def call(broker, token: str, path: str = "/token/acme", method: str = "GET") -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.request(method, broker.url + path, headers=headers, timeout=10)


def refusal(broker, token: str) -> str:
    answer = call(broker, token)
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["type"] == "urn:ignition-broker:unauthenticated"
    assert len(token) < 100 or token[-100:] not in answer.text
    return answer.json()["detail"]


def restarted(broker) -> None:
    """With no keys and no verdicts in memory."""
    broker.stop()
    broker.start()


@pytest.fixture
def fresh(broker):
    restarted(broker)
    return broker


@pytest.fixture(scope="module", autouse=True)
def _connected(broker):
    for tenant in ("acme", "beta-1", "gamma"):
        broker.connect(tenant)


# What a good token gives


def test_a_workload_gets_what_its_rule_says_and_nothing_else(broker, issuer):
    token = issuer.token()
    assert call(broker, token).json()["access_token"]
    assert call(broker, token, "/token/beta-1").status_code == 200
    for path in ("/token/gamma", "/proxy/acme/v1/me", "/forward-auth/acme", "/admin/tenants"):
        answer = call(broker, token, path)
        assert answer.status_code == 403, path
        assert answer.json()["type"] == "urn:ignition-broker:forbidden"


def test_a_rule_may_hold_a_workload_to_paths(broker, issuer):
    token = issuer.token("held", **{"kubernetes.io": {"namespace": "billing"}})
    assert call(broker, token, "/proxy/acme/v1/me").status_code == 200
    assert call(broker, token, "/proxy/acme/v1/me", "DELETE").status_code == 403
    assert call(broker, token, "/forward-auth/acme").status_code == 403
    elsewhere = issuer.token("held", **{"kubernetes.io": {"namespace": "default"}})
    assert call(broker, elsewhere, "/proxy/acme/v1/me").status_code == 403


def test_admin_is_given_by_a_rule_that_says_so_alone(broker, issuer):
    admin = issuer.token("jo", groups=["staff", "admins"])
    assert call(broker, admin, "/admin/tenants").status_code == 200
    assert call(broker, issuer.token("jo", groups=["staff"]), "/admin/tenants").status_code == 403
    assert call(broker, issuer.token("jo", scope="admin"), "/admin/tenants").status_code == 403


def test_a_workload_that_no_rule_is_about_is_told_so(broker, issuer):
    answer = call(broker, issuer.token("stranger"))
    assert answer.status_code == 403
    assert answer.json()["detail"] == "No rule in BROKER_JWT_ISSUERS is about jwt:kube/stranger."


def test_the_audit_trail_names_issuer_and_subject(broker, issuer):
    admin = issuer.token("repo:x", groups="admins")
    assert call(broker, admin, "/admin/tenants/acme/connect-link", "POST").status_code == 201
    with broker.client() as reader:
        events = reader.get("/admin/audit?tenant=acme").json()["events"]
    # Events of calls are written a little later than the calls: the newest may be another test's.
    created = [event["actor"] for event in events if event["action"] == "connect_link_create"]
    assert created[0] == "jwt:kube/repo:x"


def test_more_in_a_header_than_is_known_does_no_harm(broker, issuer):
    token = issuer.token(header={"cty": "x", "made-up": {"a": 1}, "typ": "at+jwt"})
    assert call(broker, token).status_code == 200


# What is refused


def test_a_token_without_a_signature_is_refused(broker, issuer):
    claims = issuer.claims(sub="invoicing")
    for name in ("none", "None", "NONE", ""):
        assert "(alg)" in refusal(broker, unsigned({"alg": name, "kid": "one"}, claims))
    header, payload, signature = issuer.token().split(".")
    assert "signature" in refusal(broker, f"{header}.{payload}.")
    stripped = encoded({"alg": "none", "kid": "one"})
    assert "(alg)" in refusal(broker, f"{stripped}.{payload}.{signature}")
    assert refusal(broker, f"{header}.{payload}")


@pytest.mark.parametrize("form", ["PEM", "DER", "n", "jwk"])
def test_the_public_key_is_not_accepted_as_an_hmac_secret(broker, issuer, form):
    """HS256, keyed by what everybody can read."""
    public = issuer.key.as_dict(private=False)
    secrets = {
        "PEM": issuer.key.as_pem(private=False),
        "DER": issuer.key.as_der(private=False),
        "n": str(public["n"]).encode(),
        "jwk": json.dumps(public).encode(),
    }
    header = {"alg": "HS256", "kid": "one", "typ": "JWT"}
    token = signed_by_hmac(header, issuer.claims(sub="invoicing"), secrets[form])
    assert "(alg)" in refusal(broker, token)


def test_a_key_that_the_token_brings_along_is_not_believed(broker, issuer):
    """Nor is an address fetched that it names."""
    mine = rsa("one")
    lure = JwtIssuer()
    lure.keys = [mine.as_dict(private=False)]
    try:
        for header in (
            {"jwk": mine.as_dict(private=False)},
            {"jku": f"{lure.issuer}/jwks"},
            {"x5u": f"{lure.issuer}/jwks"},
            {"x5c": ["MIIB"]},
        ):
            assert "signature is wrong" in refusal(broker, issuer.token(key=mine, header=header))
        assert lure.requests == []
    finally:
        lure.hang_up()


def test_a_signature_by_another_key_of_the_same_id_is_wrong(broker, issuer):
    assert "signature is wrong" in refusal(broker, issuer.token(key=rsa("one")))
    header, payload, signature = issuer.token().split(".")
    other = encoded(issuer.claims(sub="repo:acme/x"))
    assert "signature is wrong" in refusal(broker, f"{header}.{other}.{signature}")
    assert "signature is wrong" in refusal(
        broker, f"{encoded({'alg': 'PS256', 'kid': 'one'})}.{payload}.{signature}"
    )
    assert "signature is wrong" in refusal(
        broker, f"{encoded({'alg': 'ES256', 'kid': 'one'})}.{payload}.{signature}"
    )


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "another"}, "'aud'"),
        ({"aud": ["another", "third"]}, "'aud'"),
        ({"aud": "ignition-broker-2"}, "'aud'"),
        ({"aud": None}, "aud"),
        ({"aud": {"ignition-broker": 1}}, "'aud'"),
        ({"iss": "https://issuer.example.com"}, "(iss)"),
        ({"iss": None}, "(iss)"),
        ({"iss": ["http://localhost"]}, "(iss)"),
        ({"exp": None}, "exp"),
        ({"exp": "2999-01-01"}, "'exp' is no moment"),
        ({"exp": True}, "'exp' is no moment"),
        ({"exp": 10**400}, "'exp' is no moment"),
        ({"exp": float("inf")}, "'exp' is no moment"),
        ({"exp": float("nan")}, "'exp' is no moment"),
        ({"iat": -1}, "'iat' is no moment"),
        ({"nbf": "x"}, "'nbf' is no moment"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "'sub'"),
        ({"sub": 7}, "'sub'"),
        ({"sub": "x" * 256}, "'sub'"),
        ({"sub": "invoicing\n"}, "'sub'"),
        ({"sub": "invoicing\u202e"}, "'sub'"),
        ({"exp": int(time.time()) + 7 * 86_400}, "lives for longer"),
        ({"exp": int(time.time()) + 7 * 86_400, "iat": None}, "lives for longer"),
    ],
)
def test_claims_that_are_wrong_are_named(broker, issuer, claims, reason):
    assert reason in refusal(broker, issuer.token(**{"sub": "invoicing", **claims}))


def test_an_issuer_with_a_slash_more_is_another(broker, issuer):
    assert "(iss)" in refusal(broker, issuer.token(iss=issuer.issuer + "/"))


def test_clocks_may_differ_by_a_minute(broker, issuer):
    now = int(time.time())
    for good in ({"exp": now - 50}, {"nbf": now + 50}, {"iat": now + 50}):
        assert call(broker, issuer.token(jti=str(good), **good)).status_code == 200, good
    for bad in ({"exp": now - 70}, {"nbf": now + 70}, {"iat": now + 70, "exp": now + 600}):
        refusal(broker, issuer.token(jti=str(bad), **bad))


def test_a_token_in_use_stops_at_its_end(broker, issuer):
    token = issuer.token(exp=int(time.time()) - 57)
    assert call(broker, token).status_code == 200
    wait_until(lambda: call(broker, token).status_code == 401, 6)
    assert "expired" in refusal(broker, token)


@pytest.mark.parametrize(
    "token",
    [
        "..",
        "a.b.c",
        "....",
        "eyJ.eyJ.x",
        f"{encoded([1])}.{encoded({})}.AAAA",
        f"{encoded(['alg'])}.{encoded({})}.AAAA",
        f"{encoded('alg')}.{encoded({})}.AAAA",
        f"{encoded({'alg': ['RS256']})}.{encoded({})}.AAAA",
        f"{encoded({'alg': 'RS256', 'kid': {}})}.{encoded({})}.AAAA",
        f"{encoded({'alg': 'RS256', 'kid': 'one'})}.{encoded([])}.AAAA",
        f"{encoded({'alg': 'RS256', 'kid': 'one'})}.{encoded(b'[' * 4000)}.AAAA",
        f"{encoded({'alg': 'RS256', 'kid': 'one'})}.{encoded(bytes([255, 254]))}.AAAA",
        f"{encoded(b'[' * 3000)}.{encoded({})}.AAAA",
    ],
)
def test_what_is_malformed_is_refused_as_any_wrong_key_is(broker, token):
    assert refusal(broker, token)


def test_a_token_that_is_too_large_is_not_read(broker, issuer):
    assert "larger than 8192 bytes" in refusal(broker, issuer.token(padding="x" * 8000))
    assert call(broker, issuer.token(padding="x" * 5000)).status_code == 200


def test_headers_that_change_how_a_token_is_read_are_refused(broker, issuer):
    header = {"alg": "RS256", "kid": "one"}
    payload = json.dumps(issuer.claims(sub="invoicing")).encode()
    assert call(broker, signed_by_hand(header, payload, issuer.key)).status_code == 200
    for more in ({"crit": ["exp"], "exp": 1}, {"b64": True}, {"b64": False, "crit": ["b64"]}):
        token = signed_by_hand({**header, **more}, payload, issuer.key)
        assert "'crit' or 'b64'" in refusal(broker, token)


def test_a_token_signs_nobody_in_at_the_console(broker, issuer):
    """A session would outlive it."""
    admin = issuer.token("jo", groups="admins")
    with httpx.Client(base_url=broker.url) as browser:
        csrf = browser.get("/login").text.partition('name="csrf" value="')[2].partition('"')[0]
        assert csrf
        assert browser.post("/login", data={"key": admin, "csrf": csrf}).status_code == 401


# The issuer's keys


def test_good_tokens_are_answered_from_memory(fresh, issuer, postgres, database_url):
    token = issuer.token()
    before = issuer.fetches()
    assert call(fresh, token).status_code == 200
    for _ in range(20):
        assert call(fresh, token).status_code == 200
    assert call(fresh, issuer.token(jti="another")).status_code == 200
    assert issuer.fetches() == before + 1
    assert sql(postgres, database_url, "SELECT count(*) FROM api_keys") == "0"


def test_a_new_key_is_fetched_when_a_token_names_it(fresh, issuer):
    assert call(fresh, issuer.token()).status_code == 200
    new = rsa("new")
    issuer.keys.append(new.as_dict(private=False))
    token = issuer.token(key=new)
    wait_until(lambda: call(fresh, token).status_code == 200, PAUSE_SECONDS + 5)
    assert call(fresh, issuer.token()).status_code == 200


def test_an_issuer_that_is_away_leaves_the_keys_that_are_held(fresh, issuer):
    assert call(fresh, issuer.token()).status_code == 200
    issuer.hang_up()
    try:
        assert call(fresh, issuer.token(jti="another")).status_code == 200
        time.sleep(PAUSE_SECONDS)
        unknown = call(fresh, issuer.token(key=rsa("new")))
        assert unknown.status_code == 503
        assert call(fresh, issuer.token(jti="third")).status_code == 200
    finally:
        issuer.listen()


def test_with_no_keys_nobody_can_tell_and_says_so_until_the_issuer_is_back(fresh, issuer):
    issuer.hang_up()
    try:
        answer = call(fresh, issuer.token())
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:ignition-broker:unavailable"
        assert "keys of kube can't be fetched" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) >= 1
        with fresh.client() as admin:
            assert admin.get("/token/acme").status_code == 200
            assert admin.get("/readyz").status_code == 200
    finally:
        issuer.listen()
    wait_until(lambda: call(fresh, issuer.token()).status_code == 200, PAUSE_SECONDS + 5)


# The setting


def test_without_a_trusted_issuer_a_jwt_is_refused_with_the_settings_name(fresh, issuer):
    trusted = fresh.settings.pop("BROKER_JWT_ISSUERS")
    restarted(fresh)
    try:
        assert "BROKER_JWT_ISSUERS" in refusal(fresh, issuer.token())
    finally:
        fresh.settings["BROKER_JWT_ISSUERS"] = trusted


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("issuer.example.com", "must be a JSON list of issuers"),
        ('[{"issuer": "http://hunter2.example.com", "audience": "x"}]', "item 1.issuer: must be"),
    ],
)
def test_a_malformed_list_of_issuers_stops_the_start_with_one_line(broker, value, told):
    kept = broker.settings["BROKER_JWT_ISSUERS"]
    broker.settings["BROKER_JWT_ISSUERS"] = value
    try:
        ended = broker.command("serve")
    finally:
        broker.settings["BROKER_JWT_ISSUERS"] = kept
    assert ended.returncode == 2
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith(f"BROKER_JWT_ISSUERS: {told}")
    assert 'example: BROKER_JWT_ISSUERS=[{"issuer": ' in line
    assert "hunter2" not in line


def test_no_token_is_in_the_log(broker, issuer):
    token = issuer.token(jti="secretive")
    call(broker, token)
    call(broker, token[:-4])
    for part in token.split(".")[1:]:
        assert part[:40] not in broker.log_text()
