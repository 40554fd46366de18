"""Schemathesis over the whole OpenAPI document, with all checks, as each kind of caller.

``SCHEMATHESIS_EXAMPLES``: how many examples each operation gets beside the boundary cases.
"""

from __future__ import annotations

import os
import re
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method
from tests.conftest import wait_until
from tests.service.routes import router_of_the_service
from tests.service.test_accounts import connect

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "5"))
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="SCHEMATHESIS_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
OPEN = {"/healthz", "/readyz", "/metrics"}
MAY_SUCCEED = {
    "nobody": (),
    "token": ("/token/",),
    "proxy": ("/forward-auth/", "/proxy/"),
    "held": ("/proxy/",),
    "elsewhere": (),
    "admin": ("/token/", "/forward-auth/", "/proxy/", "/admin/"),
}
OTHER_PRACTICE = "practice_2"
SENT: Counter[str] = Counter()
AIMED: Counter[str] = Counter()
LINKS: list[str] = []
"""The id of a link of the tenant `known`, once there is one."""
WEBHOOKS: list[str] = []
"""Two destinations: one to be deleted, and one to which something was sent."""
DELIVERIES: list[int] = []
SUCCEEDED: set[tuple[str, str]] = set()
EXCLUDED = {
    # Which URLs and addresses may be destinations, and of `url` and `email` one.
    "/admin/webhooks": [positive_data_acceptance],
    # Rules that JSON schema can't express: `expires_at` is in the future, and what fits the scopes.
    "/admin/api-keys": [positive_data_acceptance],
    "/admin/api-keys/{name}/rotate": [positive_data_acceptance],
    # Names and labels are printable.
    "/admin/tenants/{tenant}": [positive_data_acceptance],
    "/admin/tenants/{tenant}/connect-link": [positive_data_acceptance],
    # 60.0 is an integer to JSON schema, and none here.
    "/admin/webhooks/{webhook}/secret": [positive_data_acceptance],
    # Any method is passed on, including those that OpenAPI can't name; the API decides.
    "/proxy/{tenant}/{path}": [unsupported_method, positive_data_acceptance],
}


document = schemathesis.openapi.from_dict(router_of_the_service().openapi())
# Its answer has no end; `test_webhook_api` reads it.
ENDLESS = "/admin/events"
OPERATIONS = [
    (method.upper(), path)
    for path, methods in document.raw_schema["paths"].items()
    for method in methods
    if path != ENDLESS
]


@pytest.fixture(scope="module")
def more_settings(fake):
    return {
        "BROKER_FAILED_ATTEMPTS": "0",
        "IGNITION_IDENTITY_URL": f"{fake.url}/v1/me",
        "IGNITION_IDENTITY_ID": "/practice_id",
    }


@pytest.fixture(scope="module")
def keys(broker):
    """By caller; the tenants that `aimed` names exist."""
    for tenant in ("known", "parting", "gone"):
        broker.connect(tenant)
    with broker.client() as admin:
        assert admin.post("/admin/tenants/gone/disconnect").status_code == 200
        for tenant in ("confirming", "discarding"):
            for practice in ("practice_1", OTHER_PRACTICE):
                connect(broker, tenant, practice)
        LINKS.append(admin.post("/admin/tenants/known/connect-link").json()["id"])
        for _ in range(2):
            made = admin.post("/admin/webhooks", json={"url": "https://hooks.invalid/"}).json()
            WEBHOOKS.append(made["id"])
        path = f"/admin/webhooks/{made['id']}"
        assert admin.post(f"{path}/test").status_code == 202
        found = lambda: admin.get(f"{path}/deliveries").json()["deliveries"]  # noqa: E731
        DELIVERIES.append(wait_until(found, what="a delivery")[0]["id"])
    for name in ("rotated", "revoked"):
        broker.make_key(name, ["token"], ["nobody"])
    return {
        "token": broker.make_key("token", ["token"], ["*"]),
        "proxy": broker.make_key("proxy", ["proxy"], ["*"]),
        "held": broker.make_key("held", ["proxy"], ["*"], paths=["GET /v1/*"]),
        "elsewhere": broker.make_key("elsewhere", ["token", "proxy"], ["nobody-*"]),
        "admin": broker.make_key("admin", ["admin"], []),
    }


@pytest.fixture(scope="module", autouse=True)
def _told():
    yield
    total = sum(SENT.values())
    print(f"\nSchemathesis: {total} requests, {dict(SENT)}")


def aimed(case) -> None:
    """Most well-formed paths lead to something that is there: the generator guesses nothing."""
    given = case.path_parameters or {}
    if case.meta is None or case.meta.is_negative_at(ParameterLocation.PATH):
        return
    AIMED[case.operation.label] += 1
    query = case.query or {}
    if "client" in query and not case.meta.is_negative_at(ParameterLocation.QUERY):
        query["client"] = "default" if AIMED[case.operation.label] % 8 else "nowhere"
        if case.path == "/admin/audit":
            # It is refused alone, which OpenAPI can't say.
            query.setdefault("tenant", "known")
    label_filter_put_right(case)
    has_body = not case.meta.is_negative_at(ParameterLocation.BODY)
    if (case.method, case.path) == ("POST", "/admin/webhooks") and has_body and turn_of(case) % 2:
        case.body = {"url": "https://hooks.invalid/"}
    if "name" in given and AIMED[case.operation.label] % 2:
        given["name"] = "rotated" if case.path.endswith("/rotate") else "revoked"
    if "webhook" in given and WEBHOOKS and turn_of(case) % 2:
        given["webhook"] = WEBHOOKS[0 if case.method == "DELETE" else 1]
    if "delivery" in given and WEBHOOKS and turn_of(case) % 2:
        given["delivery"] = DELIVERIES[0]
    if "id" in given and LINKS:
        given.update(tenant="known", id=LINKS[0])
    elif "tenant" in given and case.path.endswith("/disconnect"):
        given["tenant"] = "parting"
    elif "tenant" in given and case.path.endswith("/discard-account"):
        given["tenant"] = "discarding"
    elif "tenant" in given and case.path.endswith("/confirm-account"):
        given["tenant"] = "confirming"
        if has_body and turn_of(case) % 2:
            case.body = {"account_id": OTHER_PRACTICE}
    elif "tenant" in given and (turn := AIMED[case.operation.label] % 4):
        given["tenant"] = "gone" if turn == 3 else "known"


def label_filter_put_right(case) -> None:
    """What OpenAPI can't say: values are printable, and a key comes once."""
    query = case.query or {}
    if "label" not in query or case.meta.is_negative_at(ParameterLocation.QUERY):
        return
    labels = query["label"] if isinstance(query["label"], list) else [query["label"]]
    printable = [label for label in labels if label.isprintable()]
    query["label"] = list({label.partition("=")[0]: label for label in printable}.values())


def turn_of(case) -> int:
    return AIMED[case.operation.label]


def ask_as_everybody(case, broker, keys) -> None:
    """Every answer is as documented, and none is without its scope."""
    aimed(case)
    # If the generator wants a wrong Authorization, adding a key would make it right.
    is_about_the_key = case.meta is not None and case.meta.is_negative_at(ParameterLocation.HEADER)
    for who, routes in MAY_SUCCEED.items():
        if is_about_the_key and who in keys:
            continue
        headers = {"Authorization": f"Bearer {keys[who]}"} if who in keys else {}
        answer = case.call_and_validate(
            broker.url, headers=headers, excluded_checks=EXCLUDED.get(case.path)
        )
        SENT[who] += 1
        is_proxied = case.path.startswith("/proxy/") and "broker-error" not in answer.headers
        if answer.status_code >= 400 and not is_proxied:
            continue
        SUCCEEDED.add((case.method, case.path))
        if case.path not in OPEN:
            assert case.path.startswith(routes), (who, case.method, case.path)


def asked_of(method: str, path: str):
    """Under a name of its own: Schemathesis gives all operations the same one, of which
    pytest-xdist runs one."""

    @document.include(method=method, path=path).parametrize()
    @SETTINGS
    def test(case, broker, keys):
        ask_as_everybody(case, broker, keys)

    return test


for method, path in OPERATIONS:
    slug = re.sub(r"\W+", "_", f"{method}{path}").strip("_").lower()
    globals()[f"test_answers_are_as_documented_of_{slug}"] = asked_of(method, path)


def test_what_one_answer_names_the_next_request_finds(broker, keys):
    """Chains of requests, such as a key that is made, listed and revoked."""

    class Workflow(document.exclude(path=ENDLESS).as_state_machine()):
        def get_call_kwargs(self, case):
            SENT["chained"] += 1
            headers = {"Authorization": f"Bearer {keys['admin']}"}
            return {"base_url": broker.url, "headers": headers}

        def before_call(self, case):
            label_filter_put_right(case)

        def validate_response(self, response, case, **sent_with):
            case.validate_response(
                response, excluded_checks=EXCLUDED.get(case.path), transport_kwargs=sent_with
            )

    run_state_machine_as_test(
        Workflow, settings=settings(SETTINGS, max_examples=EXAMPLES, stateful_step_count=5)
    )


def test_every_operation_succeeded_for_somebody(request):
    """Else the checks above had refusals alone to look at."""
    if len(request.session.items) < len(OPERATIONS):
        pytest.skip("only some were asked for")
    assert set(OPERATIONS) <= SUCCEEDED


def test_no_request_caused_an_internal_error(broker):
    log = broker.log_text()
    assert not broker.tracebacks()
    assert "request_failed" not in log
