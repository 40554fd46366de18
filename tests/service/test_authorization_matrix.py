"""Every route by every kind of caller. A route without a row fails, and so does a row without a
route.

A cell is the status; or ``login``, ``home``, ``keys``, ``out`` and ``idp`` for a 303 to the sign-in
page, the console, its API keys, Ignition and the identity provider; or ``sent``: the upstream's own
answer. Behind a ``#``: another request to
the same route.
"""

# The table is easier to read by columns, so lines may be long.
# ruff: noqa: E501

from __future__ import annotations

import itertools
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import pytest
from tests.conftest import Broker, sha256, sql
from tests.service.jwt_issuer import AUDIENCE, JwtIssuer, rsa
from tests.service.oidc_provider import OidcProvider, sign_on
from tests.service.routes import declared, router_of_the_service
from tests.service.test_pages_and_callback import hidden, sign_in

from ignition_broker.web import proxy_route as proxy
from ignition_broker.web import token_routes as hot_path

CALLERS = (
    # No Authorization header; one of another scheme; two of them.
    "none", "basic", "twice",
    # A key that was never made; one revoked; one that has expired.
    "wrong", "revoked", "expired",
    # A key with the scope for this tenant, and one for other tenants only.
    "token", "token-other", "proxy", "proxy-other",
    # Proxy keys limited to paths: to this one, and to others only.
    "held", "held-other",
    # Keys with the scope `admin`: a made one, and the one from the settings.
    "admin", "bootstrap",
    # Workloads' JWTs: by a rule for this tenant, for other tenants only, for admins; and one
    # that somebody else signed.
    "jwt", "jwt-other", "jwt-admin", "jwt-forged",
    # Browsers: signed in by a key, or by single sign-on; longer ago than what can't be undone asks
    # for; with a form that lacks its token; and one whose key was revoked since.
    "session", "single-sign-on", "stale", "forged", "ended",
)  # fmt: skip

ANYONE = "200 200 200  200 200 200  200 200 200 200  200 200  200 200  200 200 200 200  200 200 200 200 200"
NOBODY = "404 404 404  404 404 404  404 404 404 404  404 404  404 404  404 404 404 404  404 404 404 404 404"

TABLE = {
    "GET /token/{tenant}":                       "401 401 401  401 401 401  200 403 403 403  403 403  200 200  200 403 200 401  401 401 401 401 401",
    "POST /token/{tenant}/refresh":              "401 401 401  401 401 401  200 403 403 403  403 403  200 200  200 403 200 401  401 401 401 401 401",
    "POST /token/{tenant}/refresh #any":         "401 401 401  401 401 401  403 403 403 403  403 403  200 200  403 403 200 401  401 401 401 401 401",
    "GET /forward-auth/{tenant}":                "401 401 401  401 401 401  403 403 200 403  403 403  200 200  403 403 200 401  401 401 401 401 401",
    "GET /proxy/{tenant}/{path}":                "401 401 401  401 401 401  403 403 sent 403  sent 403  sent sent  403 403 sent 401  401 401 401 401 401",
    "HEAD /proxy/{tenant}/{path}":               "401 401 401  401 401 401  403 403 sent 403  sent 403  sent sent  403 403 sent 401  401 401 401 401 401",
    "POST /proxy/{tenant}/{path}":               "401 401 401  401 401 401  403 403 sent 403  sent 403  sent sent  403 403 sent 401  401 401 401 401 401",
    "PUT /proxy/{tenant}/{path}":                "401 401 401  401 401 401  403 403 sent 403  sent 403  sent sent  403 403 sent 401  401 401 401 401 401",
    "PATCH /proxy/{tenant}/{path}":              "401 401 401  401 401 401  403 403 sent 403  sent 403  sent sent  403 403 sent 401  401 401 401 401 401",
    "DELETE /proxy/{tenant}/{path}":             "401 401 401  401 401 401  403 403 sent 403  sent 403  sent sent  403 403 sent 401  401 401 401 401 401",
    "OPTIONS /proxy/{tenant}/{path}":            "401 401 401  401 401 401  403 403 sent 403  sent 403  sent sent  403 403 sent 401  401 401 401 401 401",
    "PROPFIND /proxy/{tenant}/{path} #":         "401 401 401  401 401 401  403 403 sent 403  sent 403  sent sent  403 403 sent 401  401 401 401 401 401",

    "GET /admin/tenants":                        "401 401 401  401 401 401  403 403 403 403  403 403  200 200  403 403 200 401  401 401 401 401 401",
    "GET /admin/tenants/{tenant}":               "401 401 401  401 401 401  403 403 403 403  403 403  200 200  403 403 200 401  401 401 401 401 401",
    "GET /admin/tenants/{tenant}/explain":       "401 401 401  401 401 401  403 403 403 403  403 403  200 200  403 403 200 401  401 401 401 401 401",
    "PUT /admin/tenants/{tenant}":               "401 401 401  401 401 401  403 403 403 403  403 403  200 200  403 403 200 401  401 401 401 401 401",
    "POST /admin/tenants/{tenant}/connect-link": "401 401 401  401 401 401  403 403 403 403  403 403  201 201  403 403 201 401  401 401 401 401 401",
    "GET /admin/tenants/{tenant}/connect-links": "401 401 401  401 401 401  403 403 403 403  403 403  200 200  403 403 200 401  401 401 401 401 401",
    "DELETE /admin/tenants/{tenant}/connect-links/{id}": "401 401 401  401 401 401  403 403 403 403  403 403  204 204  403 403 204 401  401 401 401 401 401",
    "POST /admin/tenants/{tenant}/disconnect":   "401 401 401  401 401 401  403 403 403 403  403 403  200 200  403 403 200 401  401 401 401 401 401",
    "POST /admin/tenants/{tenant}/confirm-account":"401 401 401  401 401 401  403 403 403 403  403 403  404 404  403 403 404 401  401 401 401 401 401",
    "POST /admin/tenants/{tenant}/discard-account":"401 401 401  401 401 401  403 403 403 403  403 403  404 404  403 403 404 401  401 401 401 401 401",
    "GET /admin/api-keys":                       "401 401 401  401 401 401  403 403 403 403  403 403  200 200  403 403 200 401  401 401 401 401 401",
    "POST /admin/api-keys":                      "401 401 401  401 401 401  403 403 403 403  403 403  201 201  403 403 201 401  401 401 401 401 401",
    "POST /admin/api-keys/{name}/rotate":        "401 401 401  401 401 401  403 403 403 403  403 403  201 201  403 403 201 401  401 401 401 401 401",
    "DELETE /admin/api-keys/{name}":             "401 401 401  401 401 401  403 403 403 403  403 403  204 204  403 403 204 401  401 401 401 401 401",
    "GET /admin/webhooks":                      "401 401 401  401 401 401  403 403 403 403  403 403  200 200  403 403 200 401  401 401 401 401 401",
    "POST /admin/webhooks":                     "401 401 401  401 401 401  403 403 403 403  403 403  201 201  403 403 201 401  401 401 401 401 401",
    "DELETE /admin/webhooks/{webhook}":         "401 401 401  401 401 401  403 403 403 403  403 403  204 204  403 403 204 401  401 401 401 401 401",
    "POST /admin/webhooks/{webhook}/secret":    "401 401 401  401 401 401  403 403 403 403  403 403  201 201  403 403 201 401  401 401 401 401 401",
    "POST /admin/webhooks/{webhook}/test":      "401 401 401  401 401 401  403 403 403 403  403 403  202 202  403 403 202 401  401 401 401 401 401",
    "GET /admin/webhooks/{webhook}/deliveries": "401 401 401  401 401 401  403 403 403 403  403 403  200 200  403 403 200 401  401 401 401 401 401",
    "POST /admin/webhooks/{webhook}/deliveries/{delivery}/resend":"401 401 401  401 401 401  403 403 403 403  403 403  404 404  403 403 404 401  401 401 401 401 401",
    # A stream, whose head is looked at.
    "GET /admin/events":"401 401 401  401 401 401  403 403 403 403  403 403  200 200  403 403 200 401  401 401 401 401 401",
    "GET /admin/audit":                          "401 401 401  401 401 401  403 403 403 403  403 403  200 200  403 403 200 401  401 401 401 401 401",

    # Pages accept only sessions. /login takes a key in its form.
    "GET /":                                     "login login login  login login login  login login login login  login login  login login  login login login login  200 200 200 200 login",
    "GET /auth":                                 "login login login  login login login  login login login login  login login  login login  login login login login  out out out out login",
    "GET /auth #connected":                      "login login login  login login login  login login login login  login login  login login  login login login login  out out login out login",
    "POST /connect":                             "401 401 401  401 401 401  401 401 401 401  401 401  401 401  401 401 401 401  out out out 400 401",
    "POST /connect #connected":                  "401 401 401  401 401 401  401 401 401 401  401 401  401 401  401 401 401 401  out out login 400 401",
    "GET /disconnect":                           "login login login  login login login  login login login login  login login  login login  login login login login  200 200 login 200 login",
    "POST /disconnect":                          "401 401 401  401 401 401  401 401 401 401  401 401  401 401  401 401 401 401  tenant tenant login 400 401",
    "GET /confirm-account":                      "login login login  login login login  login login login login  login login  login login  login login login login  404 404 login 404 login",
    "POST /confirm-account":                     "401 401 401  401 401 401  401 401 401 401  401 401  401 401  401 401 401 401  404 404 login 400 401",
    "GET /api-keys":                             "login login login  login login login  login login login login  login login  login login  login login login login  200 200 200 200 login",
    "GET /api-keys/new":                         "login login login  login login login  login login login login  login login  login login  login login login login  200 200 login 200 login",
    "POST /api-keys/new":                        "401 401 401  401 401 401  401 401 401 401  401 401  401 401  401 401 401 401  200 200 login 400 401",
    "POST /api-keys/revoke":                     "401 401 401  401 401 401  401 401 401 401  401 401  401 401  401 401 401 401  keys keys login 400 401",
    "GET /tenants":                            "login login login  login login login  login login login login  login login  login login  login login login login  200 200 200 200 login",
    "GET /tenant":                             "login login login  login login login  login login login login  login login  login login  login login login login  200 200 200 200 login",
    "POST /tenant/refresh":                    "401 401 401  401 401 401  401 401 401 401  401 401  401 401  401 401 401 401  409 409 409 400 401",
    "POST /tenant/link":                       "401 401 401  401 401 401  401 401 401 401  401 401  401 401  401 401 401 401  200 200 200 400 401",
    "POST /tenant/link/revoke":                "401 401 401  401 401 401  401 401 401 401  401 401  401 401  401 401 401 401  404 404 404 400 401",
    "GET /api-keys/rotate":                    "login login login  login login login  login login login login  login login  login login  login login login login  200 200 login 200 login",
    "POST /api-keys/rotate":                   "401 401 401  401 401 401  401 401 401 401  401 401  401 401  401 401 401 401  200 200 login 400 401",
    "GET /api-keys/revoke":                    "login login login  login login login  login login login login  login login  login login  login login login login  200 200 login 200 login",
    "GET /webhooks":                           "login login login  login login login  login login login login  login login  login login  login login login login  200 200 200 200 login",
    "GET /webhooks/new":                       "login login login  login login login  login login login login  login login  login login  login login login login  200 200 login 200 login",
    "POST /webhooks/new":                      "401 401 401  401 401 401  401 401 401 401  401 401  401 401  401 401 401 401  200 200 login 400 401",
    "GET /webhook":                            "login login login  login login login  login login login login  login login  login login  login login login login  200 200 200 200 login",
    "POST /webhook/test":                      "401 401 401  401 401 401  401 401 401 401  401 401  401 401  401 401 401 401  200 200 200 400 401",
    "POST /webhook/resend":                    "401 401 401  401 401 401  401 401 401 401  401 401  401 401  401 401 401 401  404 404 404 400 401",
    "POST /webhook/secret":                    "401 401 401  401 401 401  401 401 401 401  401 401  401 401  401 401 401 401  200 200 login 400 401",
    "GET /webhook/delete":                     "login login login  login login login  login login login login  login login  login login  login login login login  200 200 login 200 login",
    "POST /webhook/delete":                    "401 401 401  401 401 401  401 401 401 401  401 401  401 401  401 401 401 401  hooks hooks login 400 401",
    "GET /audit":                              "login login login  login login login  login login login login  login login  login login  login login login login  200 200 200 200 login",
    "GET /audit/export":                       "login login login  login login login  login login login login  login login  login login  login login login login  200 200 200 200 login",
    "GET /sessions":                           "login login login  login login login  login login login login  login login  login login  login login login login  200 200 200 200 login",
    "POST /sessions/end":                      "401 401 401  401 401 401  401 401 401 401  401 401  401 401  401 401 401 401  404 404 404 400 401",
    "GET /settings":                           "login login login  login login login  login login login login  login login  login login  login login login login  200 200 200 200 login",
    "POST /logout":                              "login login login  login login login  login login login login  login login  login login  login login login login  login login login 400 login",
    "GET /login":                                ANYONE,
    "POST /login":                               "401 401 home  401 401 401  401 401 401 401  401 401  home home  401 401 401 401  401 401 401 400 401",
    "POST /login/oidc":                          "idp idp idp  idp idp idp  idp idp idp idp  idp idp  idp idp  idp idp idp idp  idp idp idp 400 idp",
    "GET /login/oidc/callback":                  "400 400 400  400 400 400  400 400 400 400  400 400  400 400  400 400 400 400  400 400 400 400 400",

    # Anybody with the link; a callback is checked by its state and browser.
    "GET /connect/{link}":                       ANYONE,
    "POST /connect/{link}":                      "out out out  out out out  out out out out  out out  out out  out out out out  out out out out out",
    "GET /callback":                             "400 400 400  400 400 400  400 400 400 400  400 400  400 400  400 400 400 400  400 400 400 400 400",

    "GET /healthz":                              ANYONE,
    "GET /readyz":                               ANYONE,
    "GET /metrics":                              ANYONE,
    "GET /style.css":                            ANYONE,
    "GET /console.js":                           ANYONE,
    "GET /connect.js":                           ANYONE,
    "GET /connect-end.js":                       ANYONE,
    "GET /brand.css":                            ANYONE,
    "GET /brand/logo":                           NOBODY,  # none is set here
    "GET /openapi.json":                         ANYONE,
    "HEAD /openapi.json":                        ANYONE,
    "GET /docs":                                 ANYONE,
    "GET /docs.js":                              ANYONE,
}  # fmt: skip

FORM_ROUTES = {
    row
    for row in TABLE
    if row.startswith("POST /") and row.split("/")[1] not in {"admin", "token", "proxy"}
} - {"POST /connect/{link}"}
PLACES = {
    "/login": "login",
    "/": "home",
    "/api-keys": "keys",
    "/tenant": "tenant",
    "/webhooks": "hooks",
    "/oauth/authorize": "out",
    "/authorize": "idp",
}
RULES = [
    {"match": {"sub": "invoicing"}, "scopes": ["token"], "tenants": ["acme"]},
    {"match": {"sub": "elsewhere"}, "scopes": ["token"], "tenants": ["other-*"]},
    {"match": {"sub": "operator"}, "scopes": ["admin"]},
]
NUMBERS = itertools.count()


@dataclass
class Cast:
    """``shown``: by caller, the values of the Authorization header."""

    broker: Broker
    shown: dict[str, list[str]]
    age_session: Callable[[str], None]

    def client(self, who: str) -> httpx.Client:
        headers = [("Authorization", value) for value in self.shown.get(who, [])]
        return httpx.Client(base_url=self.broker.url, headers=headers, timeout=30)


@pytest.fixture(scope="module")
def issuer():
    server = JwtIssuer()
    yield server
    server.hang_up()


@pytest.fixture(scope="module")
def oidc():
    provider = OidcProvider()
    yield provider
    provider.hang_up()


@pytest.fixture(scope="module")
def more_settings(issuer, oidc):
    trusted = {"issuer": issuer.issuer, "audience": AUDIENCE, "name": "kube", "rules": RULES}
    return {
        "BROKER_JWT_ISSUERS": json.dumps([trusted]),
        "BROKER_FAILED_ATTEMPTS": "0",
        "BROKER_OIDC_ISSUER": oidc.issuer,
        "BROKER_OIDC_CLIENT_ID": oidc.client_id,
        "BROKER_OIDC_CLIENT_SECRET": oidc.client_secret,
        "BROKER_OIDC_ADMIN_GROUPS": "broker-admins",
    }


@pytest.fixture(scope="module")
def cast(broker, issuer, postgres, database_url):
    for tenant in ("acme", "other-1"):
        broker.connect(tenant)
    keys = {
        "wrong": "ibk_" + secrets.token_urlsafe(32),
        "revoked": broker.make_key("revoked", ["token", "proxy", "admin"], ["*"]),
        "expired": broker.make_key(
            "expired", ["token", "proxy", "admin"], ["*"], expires_at="2999-01-01T00:00:00Z"
        ),
        "token": broker.make_key("token", ["token"], ["acme"]),
        "token-other": broker.make_key("token-other", ["token"], ["other-*"]),
        "proxy": broker.make_key("proxy", ["proxy"], ["acme"]),
        "proxy-other": broker.make_key("proxy-other", ["proxy"], ["other-*"]),
        "held": broker.make_key("held", ["proxy"], ["acme"], paths=["* /v1/me"]),
        "held-other": broker.make_key("held-other", ["proxy"], ["acme"], paths=["* /v2/*"]),
        "admin": broker.make_key("admin", ["admin"], []),
        "bootstrap": broker.admin_key,
        "jwt": issuer.token(),
        "jwt-other": issuer.token("elsewhere"),
        "jwt-admin": issuer.token("operator"),
        "jwt-forged": issuer.token("operator", key=rsa("one")),
    }
    with broker.client() as admin:
        assert admin.delete("/admin/api-keys/revoked").status_code == 204
        assert admin.post("/admin/tenants/acme-form/connect-link").status_code == 201
    past = "UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE name = 'expired'"
    sql(postgres, database_url, past)
    shown = {who: [f"Bearer {key}"] for who, key in keys.items()}
    shown["basic"] = [f"Basic {keys['admin']}"]
    shown["twice"] = [f"Bearer {keys['admin']}", f"Bearer {keys['admin']}"]

    def age_session(token: str) -> None:
        older = "UPDATE sessions SET authenticated_at = authenticated_at - interval '11 minutes'"
        sql(postgres, database_url, f"{older} WHERE token_hash = '\\x{sha256(token)}'")

    return Cast(broker, shown, age_session)


def test_every_route_has_a_row_and_every_row_a_route() -> None:
    routes = {f"{method} {path}" for method, path in declared(router_of_the_service())}
    rows = {row for row in TABLE if "#" not in row}
    assert rows == routes
    ahead = {
        path
        for module in (hot_path, proxy)
        for name, path in vars(module).items()
        if name.endswith("ROUTE")
    }
    assert ahead <= {row.split(" ")[1] for row in rows}
    assert {len(cells.split()) for cells in TABLE.values()} == {len(CALLERS)}
    print(f"\nAuthorization matrix: {len(TABLE)} x {len(CALLERS)} = {len(TABLE) * len(CALLERS)}")


@pytest.mark.parametrize("row", TABLE)
def test_a_caller_gets_what_its_key_or_session_covers_and_nothing_else(row, cast):
    expected = dict(zip(CALLERS, TABLE[row].split(), strict=True))
    seen = {who: outcome(row, who, cast) for who in CALLERS}
    assert seen == expected


def outcome(row: str, who: str, cast: Cast) -> str:
    method, path = row.split(" ")[:2]
    with cast.client(who) as caller:
        csrf = browser(caller, who, cast)
        target, more = request_for(row, path, cast)
        if row in FORM_ROUTES:
            shown = cast.shown.get(who, [""])[0].removeprefix("Bearer ")
            if row.startswith("POST /login"):
                csrf = hidden(caller.get("/login").text, "csrf")
            name = f"form-{next(NUMBERS)}"
            if row in {"POST /api-keys/revoke", "POST /api-keys/rotate"}:
                cast.broker.make_key(name, ["token"], ["acme"])
            form = {
                "tenant": "other-1" if row.endswith("#connected") else "acme-form",
                "decision": "discard",
                "key": shown,
                "name": name,
                "scopes": "token",
                "tenants": "acme",
                "target": "https://hooks.example.com/",
                "types": "tenant.connected",
                "which": new_webhook(cast) if "/webhook/" in row else "00",
                "csrf": "" if who == "forged" else csrf,
            }
            answer = caller.post(target, data=form)
        else:
            with caller.stream(method, target, **more) as answer:
                if answer.headers.get("content-type", "").startswith("text/event-stream"):
                    return str(answer.status_code)
                answer.read()
    assert_is_told(row, answer)
    if path.startswith("/proxy/") and "broker-error" not in answer.headers:
        return "sent"
    if answer.status_code != 303:
        return str(answer.status_code)
    location = urlsplit(answer.headers["location"])
    return PLACES[location.path]


def browser(caller: httpx.Client, who: str, cast: Cast) -> str:
    """Signs in those who do; the token of the console's forms."""
    if who not in {"session", "single-sign-on", "stale", "forged", "ended"}:
        return ""
    name = f"signing-in-{next(NUMBERS)}"
    if who == "single-sign-on":
        form = {"csrf": hidden(caller.get("/login").text, "csrf")}
        location = caller.post("/login/oidc", data=form).headers["location"]
        assert caller.get(sign_on(location)).status_code == 303
    else:
        assert sign_in(caller, cast.broker.make_key(name, ["admin"], [])).status_code == 303
    csrf = hidden(caller.get("/").text, "csrf")
    if who == "stale":
        cast.age_session(caller.cookies["ignition-broker-session"])
    if who == "ended":
        with cast.broker.client() as admin:
            assert admin.delete(f"/admin/api-keys/{name}").status_code == 204
    return csrf


def new_webhook(cast: Cast) -> str:
    """Its id; it is the only one then."""
    with cast.broker.client() as admin:
        for each in admin.get("/admin/webhooks").json()["webhooks"]:
            admin.delete(f"/admin/webhooks/{each['id']}")
        made = admin.post("/admin/webhooks", json={"url": "https://hooks.example.com/"})
        return made.json()["id"]


def request_for(row: str, path: str, cast: Cast) -> tuple[str, dict[str, object]]:
    """A request that is sound but for who sends it, aimed at things of its own where it changes
    any."""
    more: dict[str, object] = {}
    name = f"made-{next(NUMBERS)}"
    if row == "POST /token/{tenant}/refresh":
        more["json"] = {"rejected_token_sha256": "0" * 64}
    if row == "POST /admin/api-keys":
        more["json"] = {"name": name, "scopes": ["token"], "tenants": ["acme"]}
    if row == "PUT /admin/tenants/{tenant}":
        more["json"] = {"labels": {"tier": "gold"}}
    if row.endswith("/confirm-account"):
        more["json"] = {"account_id": "practice_2"}
    if row == "POST /admin/webhooks":
        more["json"] = {"url": "https://hooks.example.com/"}
    if row in {"GET /webhook", "GET /webhook/delete"}:
        more["params"] = {"which": new_webhook(cast)}
    if "{webhook}" in path:
        made = {"id": new_webhook(cast)}
        path = path.replace("{webhook}", made["id"]).replace("{delivery}", "1")
    if path == "/tenant":
        path += "?tenant=acme"
    if path in {"/auth", "/disconnect", "/confirm-account"}:
        path += "?tenant=" + ("other-1" if row.endswith("#connected") else "acme-form")
    if "{name}" in path:
        cast.broker.make_key(name, ["token"], ["acme"])
    if "{id}" in path:
        with cast.broker.client() as admin:
            made = admin.post("/admin/tenants/acme/connect-link").json()
        path = path.replace("{id}", made["id"])
    if "{link}" in path:
        with cast.broker.client() as admin:
            url = admin.post("/admin/tenants/linked/connect-link").json()["url"]
        path = path.replace("{link}", url.rpartition("/")[2])
    tenant = "parting" if path.endswith("{tenant}/disconnect") else "acme"
    if tenant == "parting":
        cast.broker.connect(tenant)
    found = {"tenant": tenant, "path": "v1/me", "name": name}
    return re.sub(r"\{(\w+)\}", lambda match: found[match[1]], path), more


def assert_is_told(row: str, answer: httpx.Response) -> None:
    """A refusal says why, bears no token, and no answer to a refused caller does."""
    is_page = answer.headers.get("content-type", "").startswith("text/html")
    assert is_page is (row in FORM_ROUTES) or answer.status_code not in {401, 403}
    if answer.status_code in {401, 403} and not is_page and not row.startswith("HEAD"):
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        code = {401: "unauthenticated", 403: "forbidden"}[answer.status_code]
        assert problem["type"] == f"urn:ignition-broker:{code}"
        assert "authorization" not in answer.headers
        assert "access_token" not in answer.text
    if answer.status_code == 401:
        assert is_page or answer.headers["www-authenticate"].startswith("Bearer")
