"""One table of problems: every part of the service answers what the README says."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

import ignition_broker
from ignition_broker import problems
from ignition_broker.broker.errors import BrokerError
from ignition_broker.outbound.errors import ExchangeError
from ignition_broker.server.client_limits import TOO_LARGE
from ignition_broker.server.refusals import NOT_READABLE, TUNNEL
from ignition_broker.storage.errors import StorageError
from ignition_broker.web.errors import PROBLEMS, problem, problem_for

SOURCE = Path(ignition_broker.__file__).parent
README = Path(__file__).parents[2] / "README.md"
# Nothing of the server, so it has answers of its own.
ELSEWHERE = {"fake_ignition"}
# Never reach an answer: bases, and what is handled where it arises.
UNANSWERED = {"BrokerError", "Denied", "Retryable", "ExchangeError", "StorageError"}
HANDLED_BY_PAGES = {"ConnectFailed", "StillConnecting", "LinkForged", "LinkSpent"}
HANDLED_INSIDE = {"RequestWithdrawn"}


def modules() -> list[Path]:
    return [
        path
        for path in SOURCE.rglob("*.py")
        if path.relative_to(SOURCE).parts[0] not in ELSEWHERE | {"problems.py"}
    ]


def documented() -> dict[str, set[int]]:
    """A row of several codes has a status for each; a row of one may have several statuses."""
    rows = re.findall(r"^\| ((?:`[a-z-]+`(?:, )?)+) \| ([0-9, /]+) \|", README.read_text(), re.M)
    found: dict[str, set[int]] = {}
    for codes, statuses in rows:
        names = re.findall(r"[a-z-]+", codes)
        numbers = [int(number) for number in re.findall(r"\d+", statuses)]
        pairs = zip(names * len(numbers) if len(names) == 1 else names, numbers, strict=True)
        for name, number in pairs:
            found.setdefault(name, set()).add(number)
    return found


def test_the_readme_lists_every_code_with_its_statuses():
    known: dict[str, set[int]] = {}
    for kind in problems.ALL:
        known.setdefault(kind.code, set()).add(kind.status)
    assert documented() == known


def test_no_other_module_makes_a_problem_of_its_own():
    for path in modules():
        tree = ast.parse(path.read_text())
        made = [
            node.lineno
            for node in ast.walk(tree)
            if (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ProblemKind")
            or (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and node.value.startswith(problems.TYPE_PREFIX)
            )
        ]
        assert made == [], path


def subclasses(base: type[Exception]) -> set[type[Exception]]:
    found = {base}
    for kind in base.__subclasses__():
        found |= subclasses(kind)
    return found


@pytest.mark.parametrize("base", [BrokerError, ExchangeError, StorageError])
def test_every_error_is_in_the_table_or_has_a_base_that_is(base):
    missing = {
        kind.__name__
        for kind in subclasses(base)
        if not any(known in PROBLEMS for known in kind.__mro__)
    }
    assert missing <= UNANSWERED | HANDLED_BY_PAGES | HANDLED_INSIDE


@pytest.mark.parametrize("kind", PROBLEMS)
def test_the_table_maps_errors_to_known_problems(kind):
    assert PROBLEMS[kind] in problems.ALL


@pytest.mark.parametrize("refusal", [TOO_LARGE, NOT_READABLE, TUNNEL])
def test_the_server_answers_as_the_routes_do(refusal):
    head, _blank, body = refusal.answer().partition(b"\r\n\r\n")
    status_line, *fields = head.decode().split("\r\n")
    headers = dict(field.split(": ", 1) for field in fields)
    route = problem(refusal.kind, refusal.detail, request_id=headers["x-request-id"])
    assert json.loads(body) == json.loads(route.body)
    assert status_line.split(" ")[1] == str(route.status_code)
    for name in ("content-type", "content-length", "cache-control"):
        assert headers[name] == route.headers[name]
    assert headers["broker-error"] == refusal.kind.code
    assert refusal.kind in problems.ALL


def test_an_unknown_error_is_an_internal_one_and_says_nothing_of_itself():
    answer = problem_for(RuntimeError("a secret"), "id-1")
    assert answer.status_code == 500
    assert json.loads(answer.body)["type"] == "urn:ignition-broker:internal-error"
    assert b"secret" not in answer.body
