"""Token answers as they come in the field, over real sockets: what can be read in them is stored,
and no grant ends but by Ignition's word."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from urllib.parse import urlencode

import pytest
from tests.conftest import sha256
from tests.service.odd_provider import OddProvider, Reply, merged


@pytest.fixture(scope="module")
def provider():
    server = OddProvider()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def more_settings(provider):
    return {
        "IGNITION_TOKEN_URL": f"{provider.url}/token",
        "IGNITION_REVOKE_URL": f"{provider.url}/revoke",
        "IGNITION_REFUSAL_CODES": "bad_refresh_token invalid_request",
    }


@pytest.fixture
def admin(broker):
    with broker.client() as client:
        yield client


@pytest.fixture
def tenant(broker, admin):
    """Connected; whoever ended its grant has it connected again by the next test."""
    shown = admin.get("/admin/tenants/acme")
    if shown.status_code == 404 or shown.json()["status"] != "connected":
        broker.connect("acme")
    return "acme"


def broker_forgets(admin, tenant: str) -> None:
    """After an error for which the provider spent the refresh token all the same."""
    assert admin.post(f"/admin/tenants/{tenant}/disconnect").status_code == 200


def problem(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].removeprefix("urn:ignition-broker:")


def newest_event(admin, tenant: str, action: str = "refresh") -> dict:
    events = admin.get(f"/admin/audit?tenant={tenant}").json()["events"]
    return next(event for event in events if event["action"] == action)


def recoded(encoding: str, **headers):
    """With a description that is not ASCII, so that the encoding shows."""
    return lambda fields: Reply(
        json.dumps(fields | {"account": "Zoë"}, ensure_ascii=False).encode(encoding),
        headers={"Content-Type": "application/json", **headers},
    )


def labelled(**headers):
    return lambda fields: Reply(json.dumps(fields).encode(), headers=headers)


def around(before: bytes, after: bytes):
    return lambda fields: Reply(before + json.dumps(fields).encode() + after)


def packed(pack, coding: str | None):
    headers = {} if coding is None else {"Content-Encoding": coding}
    return lambda fields: Reply(pack(json.dumps(fields).encode()), headers=headers)


def with_bad_checksum(plain: bytes) -> bytes:
    return gzip.compress(plain)[:-8] + b"\0" * 8


def with_raw_newline(fields: dict) -> Reply:
    return Reply(json.dumps(fields | {"note": "two@lines\there"}).replace("@", "\n").encode())


def camel_cased(fields: dict) -> Reply:
    names = {"access_token": "accessToken", "refresh_token": "refreshToken"}
    return Reply(json.dumps({names.get(k, k): v for k, v in fields.items()}).encode())


SERVED = {
    "null type": merged(token_type=None),
    "empty type": merged(token_type=""),
    "blank behind the type": merged(token_type="Bearer "),
    "BearerToken": merged(token_type="BearerToken"),
    "bearer_token": merged(token_type="bearer_token"),
    "JWT": merged(token_type="JWT"),
    "a number for a type": merged(token_type=1),
    "a list for a type": merged(token_type=["Bearer"]),
    "latin-1": recoded("latin-1"),
    "latin-1 by charset": recoded("latin-1", **{"Content-Type": "text/json; charset=iso-8859-1"}),
    "utf-8 called latin-1": recoded("utf-8", **{"Content-Type": "text/json; charset=iso-8859-1"}),
    "utf-16": recoded("utf-16"),
    "utf-16 without a mark": recoded("utf-16-le"),
    "a mark": recoded("utf-8-sig"),
    "raw newline": with_raw_newline,
    "coding utf-8": labelled(**{"Content-Encoding": "utf-8"}),
    "coding none": labelled(**{"Content-Encoding": "none"}),
    "coding br on plain JSON": labelled(**{"Content-Encoding": "br"}),
    "coding gzip on plain JSON": labelled(**{"Content-Encoding": "gzip"}),
    "coding deflate on plain JSON": labelled(**{"Content-Encoding": "deflate"}),
    "codings gzip and utf-8": packed(gzip.compress, "utf-8, gzip"),
    "gzip without a label": packed(gzip.compress, None),
    "gzip twice": packed(lambda plain: gzip.compress(gzip.compress(plain)), "gzip, gzip"),
    "gzip cut off": packed(lambda plain: gzip.compress(plain)[:-6], "gzip"),
    "gzip with a bad checksum": packed(with_bad_checksum, "gzip"),
    "raw deflate": packed(lambda plain: zlib.compress(plain)[2:-4], "deflate"),
    "no content type": labelled(),
    "html content type": labelled(**{"Content-Type": "text/html"}),
    "form-encoded": lambda fields: Reply(urlencode(fields).encode()),
    "junk behind": around(b"", b"\n<!-- 12 ms -->"),
    "junk before": around(b")]}',\n", b""),
    "a list around": around(b"[", b"]"),
    "a brace missing": lambda fields: Reply(json.dumps(fields)[:-1].encode()),
    "a comma too many": lambda fields: Reply(json.dumps(fields)[:-1].encode() + b",}"),
    "under data": lambda fields: Reply(json.dumps({"status": "ok", "data": fields}).encode()),
    "JSON in a string": lambda fields: Reply(json.dumps(json.dumps(fields)).encode()),
    "camel case": camel_cased,
    "scope as a list": merged(scope=["read", "write"]),
    "scope as a number": merged(scope=7),
    "expires_in of 5000 digits": lambda fields: Reply(
        json.dumps(fields).replace("3600", "9" * 5000).encode()
    ),
    "blanks around the token": lambda fields: Reply(
        json.dumps(fields | {"access_token": f" {fields['access_token']}\n"}).encode()
    ),
    "an error beside the token": merged(error="none"),
    "status 500": lambda fields: Reply(json.dumps(fields).encode(), 500),
    "status 503": lambda fields: Reply(json.dumps(fields).encode(), 503),
    "status 404": lambda fields: Reply(json.dumps(fields).encode(), 404),
    "broken off behind the tokens": lambda fields: Reply(
        json.dumps(fields | {"note": "x" * 200}).encode(), cut_bytes=100
    ),
}


@pytest.mark.parametrize("name", SERVED)
def test_a_token_that_can_be_read_is_stored_and_served(tenant, provider, admin, name):
    """And the refresh token beside it, as the next refresh shows."""
    reuses = provider.reuses
    old = admin.get(f"/token/{tenant}").json()["access_token"]
    provider.shapes.append(SERVED[name])
    renewed = admin.post(f"/token/{tenant}/refresh")
    assert renewed.status_code == 200, renewed.text
    assert renewed.json()["access_token"] not in ("", old)
    assert renewed.json()["token_type"] == "Bearer"
    again = admin.post(f"/token/{tenant}/refresh")
    assert again.status_code == 200, again.text
    assert provider.reuses == reuses
    if name == "scope as a list":
        assert renewed.json()["scope"] == "read write"


UNUSABLE = {
    "DPoP": (merged(token_type="DPoP"), "DPoP"),
    "mac": (merged(token_type="mac"), "mac"),
    "no access token": (merged(access_token=None), "access_token"),
    "a blank in the token": (merged(access_token="a b"), "access_token"),
    "a newline in the token": (merged(access_token="a\r\nX: y"), "access_token"),
    "not ASCII": (merged(access_token="é"), "access_token"),
    "an error": (merged(access_token=None, error="temporarily_unavailable"), "temporarily"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_refresh_token_without_a_usable_access_token_is_safe(tenant, provider, admin, name):
    shape, told = UNUSABLE[name]
    reuses = provider.reuses
    old = admin.get(f"/token/{tenant}").json()["access_token"]
    provider.shapes.append(shape)
    answer = admin.post(f"/token/{tenant}/refresh")
    assert problem(answer) == (502, "provider-error")
    assert told in answer.json()["detail"]
    event = newest_event(admin, tenant)
    assert (event["outcome"], event["detail"]["rotated"]) == ("no_access_token", True)
    assert told in event["detail"]["error"]
    assert told in admin.get(f"/admin/tenants/{tenant}").json()["last_error"]
    assert admin.get(f"/token/{tenant}").json()["access_token"] == old, "it still lives"
    rejected = admin.post(f"/token/{tenant}/refresh", json={"rejected_token_sha256": sha256(old)})
    assert problem(rejected) == (503, "provider-unavailable"), "and is not given to who saw it fail"
    assert admin.post(f"/token/{tenant}/refresh").status_code == 200, "by the new refresh token"
    assert provider.reuses == reuses


def test_a_token_type_that_may_be_a_token_is_not_repeated(tenant, provider, admin):
    provider.shapes.append(lambda fields: merged(token_type=fields["access_token"])(fields))
    answer = admin.post(f"/token/{tenant}/refresh")
    assert problem(answer) == (502, "provider-error")
    assert "access-" not in answer.text
    assert "access-" not in admin.get(f"/admin/tenants/{tenant}").text


def test_flaws_of_an_answer_are_in_the_log_and_the_audit_trail(broker, provider, admin):
    broker.connect("flawed")
    provider.shapes.append(merged(token_type="JWT", scope=7, refresh_token=5))
    # Its refresh token can't be read, so the next refresh would send the spent one.
    assert admin.post("/token/flawed/refresh").status_code == 200
    flaws = newest_event(admin, "flawed")["detail"]["flaws"]
    assert [flaw.split(" ")[0] for flaw in flaws] == ["refresh_token", "token_type", "scope"]
    assert "token_answer_flawed" in broker.log_text()


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (merged(token_type="DPoP"), "DPoP"),
        (merged(access_token=None), "access_token"),
        (merged(expires_in=0), "0 seconds"),
        (merged(expires_in=-5), "0 seconds"),
    ],
)
def test_a_code_whose_first_token_is_no_good_connects_and_the_page_says_so(
    broker, provider, admin, shape, told
):
    tenant, reuses = "connected-oddly", provider.reuses
    provider.shapes.append(shape)
    page = broker.connect(tenant)
    assert page.status_code == 200
    assert told in page.text
    assert told in newest_event(admin, tenant, "connect")["detail"]["warning"]
    token = admin.get(f"/token/{tenant}")
    assert (token.status_code, token.json().get("token_type")) == (200, "Bearer"), token.text
    assert provider.reuses == reuses


REFUSALS = {
    "200 and null": Reply(b'{"access_token": null, "error": "invalid_grant"}'),
    "200 and empty": Reply(b'{"access_token": "", "refresh_token": "", "error": "invalid_grant"}'),
    "latin-1": Reply('{"error": "invalid_grant", "error_description": "é"}'.encode("latin-1"), 400),
    "raw newline": Reply(b'{"error": "invalid_grant", "error_description": "two\nlines"}', 400),
    "odd coding": Reply(b'{"error": "invalid_grant"}', 400, {"Content-Encoding": "utf-8"}),
    "coding br": Reply(b'{"error": "invalid_grant"}', 400, {"Content-Encoding": "br"}),
    "gzip": Reply(gzip.compress(b'{"error": "invalid_grant"}'), 400),
    "capitals": Reply(b'{"error": "INVALID_GRANT"}', 400),
    "mixed": Reply(b'{"error": "Invalid-Grant "}', 400),
    "401": Reply(b'{"error": "invalid_grant"}', 401),
    "403": Reply(b'{"error": "invalid_grant"}', 403),
    "422": Reply(b'{"error": "invalid_grant"}', 422),
    "500": Reply(b'{"error": "invalid_grant"}', 500),
    "form-encoded": Reply(b"error=invalid_grant&error_description=gone", 200),
    "an object": Reply(b'{"error": {"code": "invalid_grant", "message": "gone"}}', 400),
    "a comma too many": Reply(b'{"error": "invalid_grant",}', 400),
    "junk behind": Reply(b'{"error": "invalid_grant"}\n<!-- -->', 400),
    "html label": Reply(b'{"error": "invalid_grant"}', 400, {"Content-Type": "text/html"}),
    "named in the settings": Reply(b'{"error": "bad_refresh_token"}', 400),
    "named, in capitals": Reply(b'{"error": "BAD_REFRESH_TOKEN"}', 200),
    "another one named": Reply(b'{"error": "invalid_request"}', 400),
    "the old token repeated": None,
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_recognised_in_any_spelling(tenant, provider, admin, name):
    reply = REFUSALS[name]
    if reply is None:
        sent = provider._current[max(provider._current)]
        reply = Reply(json.dumps({"error": "invalid_grant", "refresh_token": sent}).encode(), 400)
    provider.shapes.append(lambda _fields: reply)
    assert problem(admin.post(f"/token/{tenant}/refresh")) == (409, "reauthorization-required")
    shown = admin.get(f"/admin/tenants/{tenant}").json()
    assert shown["status"] == "reauthorization_required"


@pytest.mark.parametrize("code", ["invalid_scope", "RefreshTokenExpired"])
def test_any_other_code_is_said_to_refuse_this_request_and_the_setting_is_named(
    tenant, provider, admin, code
):
    body = json.dumps({"error": code}).encode()
    provider.shapes.append(lambda _fields: Reply(body, 400))
    answer = admin.post(f"/token/{tenant}/refresh")
    assert problem(answer) == (502, "provider-error")
    detail = answer.json()["detail"]
    assert "this grant's request" in detail
    assert code in detail
    assert "IGNITION_REFUSAL_CODES" in detail
    assert "client" not in detail
    assert newest_event(admin, tenant)["outcome"] == "rejected"
    assert admin.get(f"/admin/tenants/{tenant}").json()["status"] == "connected"
    broker_forgets(admin, tenant)


@pytest.mark.parametrize("code", ["server_error", "invalid_client"])
def test_a_code_behind_a_5xx_that_is_no_refusal_says_nothing_of_what_was_done(
    tenant, provider, admin, code
):
    body = json.dumps({"error": code}).encode()
    provider.shapes.append(lambda _fields: Reply(body, 502))
    answer = admin.post(f"/token/{tenant}/refresh")
    assert problem(answer) == (503, "provider-unavailable")
    assert newest_event(admin, tenant)["outcome"] == "answer_lost"
    broker_forgets(admin, tenant)


@pytest.mark.parametrize("code", ["invalid_client", "unauthorized_client", "INVALID_CLIENT"])
def test_only_what_names_the_client_blames_it(tenant, provider, admin, code):
    body = json.dumps({"error": code}).encode()
    provider.shapes.append(lambda _fields: Reply(body, 401))
    answer = admin.post(f"/token/{tenant}/refresh")
    assert problem(answer) == (502, "provider-error")
    assert "client" in answer.json()["detail"]
    assert newest_event(admin, tenant)["outcome"] == "misconfigured"
    broker_forgets(admin, tenant)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (b"", "gzip"),
        (b"\x8b\x02\x80not brotli", "br"),
        (b"(\xb5/\xfd", "zstd"),
        (gzip.compress(b"x" * 99, mtime=0)[:20], "gzip"),
        (b"\xff\xff\xff", "deflate"),
        (gzip.compress(b"x" * (2 << 20), mtime=0), "gzip"),
        (b'{"error": "invalid_grant"}', ""),
    ],
)
def test_retry_after_counts_whatever_the_body_is(tenant, provider, admin, status, body, coding):
    headers = {"Content-Encoding": coding, "Retry-After": "7"}
    provider.shapes.append(lambda _fields: Reply(body, status, headers))
    answer = admin.post(f"/token/{tenant}/refresh")
    assert problem(answer) == (503, "provider-unavailable")
    assert int(answer.headers["retry-after"]) == 7
    assert newest_event(admin, tenant)["outcome"] == "throttled"
    broker_forgets(admin, tenant)


def test_a_429_that_broke_off_keeps_its_retry_after(broker, provider, admin):
    broker.connect("cut")
    provider.shapes.append(lambda _fields: Reply(b"later", 429, {"Retry-After": "7"}, cut_bytes=3))
    answer = admin.post("/token/cut/refresh")
    assert int(answer.headers["retry-after"]) == 7
    assert newest_event(admin, "cut")["outcome"] == "throttled"


@pytest.mark.parametrize(
    ("status", "outcome"), [(400, "rejected"), (404, "rejected"), (500, "answer_lost")]
)
def test_an_error_that_cannot_be_decoded_is_judged_by_its_status(
    broker, provider, admin, status, outcome
):
    tenant = f"sealed-{status}"
    broker.connect(tenant)
    headers = {"Content-Encoding": "br"}
    provider.shapes.append(lambda _fields: Reply(b"\x8b\x02\x80", status, headers))
    assert not admin.post(f"/token/{tenant}/refresh").is_success
    assert newest_event(admin, tenant)["outcome"] == outcome
    assert admin.get(f"/token/{tenant}").status_code == 200


def test_an_answer_that_broke_off_ahead_of_its_tokens_is_a_lost_one(broker, provider, admin):
    broker.connect("early")

    def cut_in_the_refresh_token(fields: dict) -> Reply:
        fields = {"refresh_token": fields["refresh_token"], **fields}
        body = json.dumps(fields).encode()
        return Reply(body, cut_bytes=len(body) - 24)

    provider.shapes.append(cut_in_the_refresh_token)
    assert problem(admin.post("/token/early/refresh")) == (503, "provider-unavailable")
    assert newest_event(admin, "early")["outcome"] == "answer_lost"


def test_nothing_of_an_odd_answer_reaches_the_log(broker, provider, admin):
    broker.connect("quiet")
    for shape in (merged(token_type="DPoP"), recoded("latin-1"), around(b"", b"junk")):
        provider.shapes.append(shape)
        admin.post("/token/quiet/refresh")
    time.sleep(0.1)
    assert "refresh-" not in broker.log_text()
    assert "access-" not in broker.log_text()
