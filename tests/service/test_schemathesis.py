"""Schemathesis over the whole OpenAPI document, with all checks, as each kind of caller.

``SCHEMATHESIS_EXAMPLES``: how many examples each operation gets beside the boundary cases.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method
from tests.service.routes import router_of_the_service

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "2"))
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
SENT: Counter[str] = Counter()
EXCLUDED = {
    # Rules that no JSON schema tells: `expires_at` lies ahead, and what goes with the scopes.
    "/admin/api-keys": [positive_data_acceptance],
    # Any method is passed on, those too that OpenAPI can't name; the API judges.
    "/proxy/{tenant}/{path}": [unsupported_method, positive_data_acceptance],
}


document = schemathesis.openapi.from_dict(router_of_the_service().openapi())


@pytest.fixture(scope="module")
def keys(broker):
    """By caller; the tenants that `aimed` names exist."""
    for tenant in ("known", "parting", "gone"):
        broker.connect(tenant)
    with broker.client() as admin:
        assert admin.post("/admin/tenants/gone/disconnect").status_code == 200
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
    """Two of three well-formed paths lead to a tenant that is there: the generator guesses none."""
    meta = case.meta
    if meta is None or meta.is_negative_at(ParameterLocation.PATH):
        return
    if "tenant" not in (case.path_parameters or {}):
        return
    if case.path.endswith("/disconnect"):
        case.path_parameters["tenant"] = "parting"
    else:
        choice = SENT.total() % 3
        if choice < 2:
            case.path_parameters["tenant"] = ("known", "gone")[choice]


@document.parametrize()
@SETTINGS
def test_every_answer_is_as_documented_and_none_is_without_its_scope(case, broker, keys):
    aimed(case)
    for who, routes in MAY_SUCCEED.items():
        headers = {"Authorization": f"Bearer {keys[who]}"} if who in keys else {}
        answer = case.call_and_validate(
            broker.url, headers=headers, excluded_checks=EXCLUDED.get(case.path)
        )
        SENT[who] += 1
        if answer.status_code < 400 and case.path not in OPEN:
            assert case.path.startswith(routes), (who, case.method, case.path)


def test_what_one_answer_names_the_next_request_finds(broker, keys):
    """Chains of requests, such as a key that is made, listed and revoked."""

    class Workflow(document.as_state_machine()):
        def get_call_kwargs(self, case):
            SENT["chained"] += 1
            headers = {"Authorization": f"Bearer {keys['admin']}"}
            return {"base_url": broker.url, "headers": headers}

        def validate_response(self, response, case, **sent_with):
            case.validate_response(
                response, excluded_checks=EXCLUDED.get(case.path), transport_kwargs=sent_with
            )

    run_state_machine_as_test(
        Workflow, settings=settings(SETTINGS, max_examples=EXAMPLES, stateful_step_count=5)
    )


def test_nothing_of_it_was_a_fault_of_the_brokers_own(broker):
    log = broker.log_text()
    assert "Traceback" not in log
    assert "request_failed" not in log
