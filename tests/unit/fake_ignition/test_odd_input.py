"""The fake refuses any odd input cleanly and never crashes."""

from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ignition_broker.fake_ignition import create_fake_ignition

FORM = "application/x-www-form-urlencoded"
ENDPOINTS = [
    "/oauth/token",
    "/oauth/revoke",
    "/oauth/authorize",
    "/control/fail",
    "/control/options",
    "/control/expire",
    "/control/revoke",
    "/control/grants",
    "/control/reset",
    "/v1/clients",
]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
async def client():
    transport = httpx.ASGITransport(create_fake_ignition())
    async with httpx.AsyncClient(transport=transport, base_url="http://fake") as client:
        yield client


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    path=st.sampled_from(ENDPOINTS),
    body=st.binary(max_size=200),
    content_type=st.sampled_from([FORM, "application/json", "text/plain", ""]),
)
async def test_random_bytes_are_refused(client, path: str, body: bytes, content_type: str):
    answer = await client.post(path, content=body, headers={"content-type": content_type})
    assert answer.status_code < 500


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    path=st.sampled_from(ENDPOINTS),
    members=st.dictionaries(
        st.sampled_from(
            [
                "endpoint",
                "count",
                "status",
                "drop",
                "headers",
                "mutate",
                "delay_seconds",
                "grant",
                "grant_type",
                "code",
                "refresh_token",
                "client_id",
                "client_secret",
                "scope",
                "access_token_sha256",
                "name",
                "email",
            ]
        ),
        json_values,
    ),
)
async def test_random_objects_are_refused(client, path: str, members: dict[str, object]):
    await client.post("/control/reset")
    assert (await client.post(path, json=members)).status_code < 500


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    parameters=st.dictionaries(
        st.sampled_from(
            [
                "client_id",
                "redirect_uri",
                "response_type",
                "scope",
                "state",
                "code_challenge",
                "code_challenge_method",
                "auto",
            ]
        ),
        st.text() | st.sampled_from(["demo-client", "http://localhost:3000/callback", "code", "1"]),
    )
)
async def test_random_authorization_requests_are_answered(client, parameters: dict[str, str]):
    assert (await client.get("/oauth/authorize", params=parameters)).status_code in (200, 303, 400)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"grant_type": "\\ud800"}', "application/json"),
        (b'{"client_secret": "\\udfff", "grant_type": "x"}', "application/json"),
        (b"[" * 60_000, "application/json"),
        (b"1" * 5000, "application/json"),
        (b'{"client_id": 1}', "application/json"),
        (b"[]", "application/json"),
        (b"", "application/json"),
        (b"grant_type=%ff", FORM),
        (b"a=1&a=2", FORM),
        (b"&".join(b"a%d=1" % number for number in range(200)), FORM),
        (b"\xff=\xff", FORM),
        (b"grant_type=refresh_token", "text/plain"),
    ],
)
async def test_malformed_token_requests_are_invalid(client, body: bytes, content_type: str):
    answer = await client.post("/oauth/token", content=body, headers={"content-type": content_type})
    assert answer.status_code in (400, 401)
    assert answer.json()["error"] in ("invalid_request", "invalid_client")


async def test_a_body_too_large_is_refused_as_such(client):
    for path in ("/oauth/token", "/control/fail"):
        assert (await client.post(path, content=b"a" * 70_000)).status_code == 413
    consent = await client.post(
        "/oauth/authorize", content=b"a" * 70_000, headers={"content-type": FORM}
    )
    assert consent.status_code == 400


@pytest.mark.parametrize(
    "authorization",
    ["Basic", "Basic !", "Basic YQ==", "Basic /////w==", "Bearer x", "Basic " + "A" * 4000],
)
async def test_malformed_basic_credentials_are_an_invalid_client(client, authorization: str):
    answer = await client.post(
        "/oauth/token",
        data={"grant_type": "refresh_token"},
        headers={"authorization": authorization},
    )
    assert answer.status_code == 401
    assert answer.json()["error"] == "invalid_client"
    assert answer.headers["www-authenticate"].startswith("Basic")


@pytest.mark.parametrize(
    "order",
    [
        {"endpoint": "nowhere"},
        {"endpoint": "token", "count": 0},
        {"endpoint": "token", "status": 99},
        {"endpoint": "token", "status": 600},
        {"endpoint": "token", "drop": "sideways"},
        {"endpoint": "token", "delay_seconds": -1},
        {"endpoint": "token", "headers": {"A b": "c"}},
        {"endpoint": "token", "headers": {"A": "c\r\nB: d"}},
        {"endpoint": "token", "headers": {"Content-Length": "3"}},
        {"endpoint": "token", "content_type": "a\nb"},
        {"endpoint": "token", "unheard": 1},
        {},
    ],
)
async def test_a_fault_that_makes_no_sense_is_refused(client, order: dict[str, object]):
    assert (await client.post("/control/fail", json=order)).status_code == 400
    assert (
        await client.post("/control/fail", content=b'{"endpoint":"token","delay_seconds":NaN}')
    ).is_error


@pytest.mark.parametrize("path", ["/oauth/token/", "/v1", "/v2", "/control", "/echo%00", "/%ff"])
async def test_other_paths_are_not_found(client, path: str):
    assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize("token", ["", "x", "\u00ff", quote("é"), "a b", "x" * 8000])
async def test_odd_bearer_tokens_are_not_accepted(client, token: str):
    headers = {"authorization": f"Bearer {token}".encode("latin-1")}
    assert (await client.get("/v1/me", headers=headers)).status_code == 401
