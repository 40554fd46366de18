"""All ways out share their authorities and their egress proxy: the token endpoint, the API, the
identity provider and the issuers of JWTs are reached alike, or not at all."""

from __future__ import annotations

import json

import httpx
import pytest
from tests.service.certificates import Authority
from tests.service.egress_proxy import EgressProxyServer
from tests.service.jwt_issuer import AUDIENCE, JwtIssuer
from tests.service.oidc_provider import OidcProvider, sign_on
from tests.service.test_single_sign_on import begin
from tests.service.tls_front import TlsFront

PASSWORD = "pass-word-of-the-proxy"
RULES = [{"match": {"sub": "*"}, "scopes": ["token", "proxy"], "tenants": ["*"]}]


@pytest.fixture(
    scope="module",
    params=[
        ("BROKER_CA_FILE", False),
        ("SSL_CERT_FILE", False),
        ("BROKER_CA_FILE", True),
    ],
    ids=["BROKER_CA_FILE", "SSL_CERT_FILE", "an egress proxy"],
)
def way(request):
    """The setting that names the authority, and whether a proxy leads to the servers."""
    return request.param


@pytest.fixture(scope="module")
def host(way):
    return "inner.ignition.test" if way[1] else "localhost"


@pytest.fixture(scope="module")
def proxy(way):
    server = EgressProxyServer(f"jo:{PASSWORD}").start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def authority(way, tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"), "inner-authority")


@pytest.fixture(scope="module")
def front(host, authority):
    """``front(port)`` is an origin behind which TLS ends, on the way to that port."""
    fronts = []
    context = authority.issue(host).server_context()

    def origin(port: int) -> str:
        fronts.append(TlsFront(context, port))
        return f"https://{host}:{fronts[-1].port}"

    yield origin
    for each in fronts:
        each.stop()


@pytest.fixture(scope="module")
def oidc(front):
    provider = OidcProvider()
    provider.own_origin = provider.issuer
    provider.issuer = front(provider.port)
    yield provider
    provider.hang_up()


@pytest.fixture(scope="module")
def issuer(front):
    server = JwtIssuer()
    server.issuer = front(server.port)
    yield server
    server.hang_up()


@pytest.fixture(scope="module")
def more_settings(way, authority, proxy, front, fake, oidc, issuer):
    ignition = front(fake.port)
    name = way[0]
    trusted = {"issuer": issuer.issuer, "audience": AUDIENCE, "name": "inner", "rules": RULES}
    settings = {
        name: str(authority.certificate),
        "IGNITION_TOKEN_URL": f"{ignition}/oauth/token",
        "IGNITION_REVOKE_URL": f"{ignition}/oauth/revoke",
        "IGNITION_API_URL": ignition,
        "BROKER_JWT_ISSUERS": json.dumps([trusted]),
        "BROKER_OIDC_ISSUER": oidc.issuer,
        "BROKER_OIDC_CLIENT_ID": oidc.client_id,
        "BROKER_OIDC_CLIENT_SECRET": oidc.client_secret,
        "BROKER_OIDC_ADMIN_GROUPS": "broker-admins",
    }
    # It is named in either case: loopback is reached without it.
    return {**settings, "HTTPS_PROXY": proxy.url, "HTTP_PROXY": proxy.url}


def test_every_way_out_reaches_its_server(broker, fake, proxy, oidc, issuer, way):
    broker.connect("acme")
    bearer = {"Authorization": f"Bearer {issuer.token()}"}
    with broker.client() as admin:
        assert admin.post("/token/acme/refresh").status_code == 200
    with httpx.Client(base_url=broker.url, headers=bearer, timeout=20) as workload:
        assert workload.get("/token/acme").status_code == 200
        assert workload.get("/proxy/acme/v1/me").status_code == 200
    with httpx.Client(base_url=broker.url, timeout=20) as browser:
        location = begin(browser).replace(oidc.issuer, oidc.own_origin)
        assert browser.get(sign_on(location)).status_code == 303
        assert browser.get("/").status_code == 200
    with broker.client() as admin:
        assert admin.post("/admin/tenants/acme/disconnect").status_code == 200
    assert fake.counters()["revocations"] == 1
    reached = {f"https://{target}" for target in proxy.targets}
    origins = {oidc.issuer, issuer.issuer, broker.settings["IGNITION_API_URL"]}
    assert reached == (origins if way[1] else set())
    assert PASSWORD not in broker.log_text()


def test_a_proxy_that_refuses_is_named_and_nothing_was_sent(broker, fake, proxy, way):
    if not way[1]:
        pytest.skip("no proxy on the way")
    broker.connect("beta")
    key = broker.make_key("calls", ["token", "proxy"], ["beta"])
    before = fake.counters()
    proxy.answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    try:
        told = f"The egress proxy at {proxy.name} answered 407"
        with broker.client(key) as caller:
            call = caller.get("/proxy/beta/v1/me")
            assert (call.status_code, call.headers["broker-error"]) == (502, "upstream-unreachable")
            assert told in call.json()["detail"]
        with broker.client() as admin:
            renewal = admin.post("/token/beta/refresh")
            assert renewal.status_code == 503
            shown = admin.get("/admin/tenants/beta").json()
            assert shown["status"] == "connected"
    finally:
        proxy.reset()
    assert fake.counters() == before
    assert told in broker.log_text()
    assert PASSWORD not in broker.log_text()
    with broker.client(key) as caller:
        assert caller.get("/proxy/beta/v1/me").status_code == 200
