"""Two properties of the code that this test checks by parsing it."""

from __future__ import annotations

import ast
from pathlib import Path

import ignition_broker
from ignition_broker.broker.callers import access
from ignition_broker.storage import api_keys, tables

SOURCE = Path(ignition_broker.__file__).parent


def test_a_key_is_looked_up_by_its_hash_alone():
    """So that time tells nothing of a key: a guess that shares its first characters with a key
    shares nothing with the key's SHA-256, and nothing else of it is ever compared."""
    assert set(api_keys.FIND.compile().params) == {"key_hash"}
    kept = {column.name for column in tables.metadata.tables["api_keys"].columns}
    assert not {"key", "prefix", "key_prefix"} & kept
    compared = [
        ast.unparse(node)
        for definition in ast.parse(Path(access.__file__).read_text()).body
        if isinstance(definition, ast.ClassDef)
        for node in ast.walk(definition)
        if isinstance(node, ast.Compare)
        for operand in (node.left, *node.comparators)
        if isinstance(operand, ast.Name) and operand.id in {"key", "token", "admin_key"}
    ]
    assert compared == []


def made_of_parts(module: ast.Module) -> list[str]:
    """Statements that a function puts together."""
    functions = [
        node
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return [
        ast.unparse(call)
        for function in functions
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
        and ast.unparse(call.func).rpartition(".")[2] in {"text", "exec_driver_sql"}
        and not ast.unparse(call.func).startswith(("self.", "response.", "answer."))
        and not isinstance(call.args[0], ast.Constant)
    ]


def test_no_statement_is_made_of_what_a_caller_sent():
    """Statements are constants of their module; values are bound."""
    storage = sorted((SOURCE / "storage").rglob("*.py"))
    assert len(storage) > 8
    found = {path.name: made_of_parts(ast.parse(path.read_text())) for path in storage}
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_no_sql_stands_outside_of_storage():
    elsewhere = [
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if path.parent.name not in {"storage", "embedded"}
        and "from sqlalchemy import" in path.read_text()
    ]
    assert elsewhere == []


def test_a_statement_that_a_function_puts_together_is_found_out():
    bad = "def find(c, name):\n    return c.execute(text(f'SELECT {name}'))\n"
    assert made_of_parts(ast.parse(bad)) == ["text(f'SELECT {name}')"]
