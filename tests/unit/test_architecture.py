"""The pages that explain the code name files that exist."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "ignition_broker"
_PATH = re.compile(r"[\w./]*\w(?:\.py|/(?=`))")


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/glossary.md", "CONTRIBUTING.md"])
def test_every_path_on_the_page_exists(page):
    text = (ROOT / page).read_text().replace("src/ignition_broker/", "")
    named = {each for each in _PATH.findall(text) if "NNNN" not in each}
    assert len(named) > 20
    assert [each for each in sorted(named) if not is_there(each)] == []


def test_a_long_module_says_why():
    long = [path for path in SOURCE.rglob("*.py") if len(path.read_text().splitlines()) > 250]
    why = {path: ast.get_docstring(ast.parse(path.read_text())) or "" for path in long}
    assert [str(path) for path in long if "Over 250 lines: " not in why[path]] == []


def is_there(path: str) -> bool:
    return any((folder / path).exists() for folder in (SOURCE, ROOT))


# The two lowest layers of the package are single modules, which the page does not list.
@pytest.mark.parametrize(
    ("container", "listed"), [("ignition_broker", -2), ("ignition_broker.broker", None)]
)
def test_the_layers_are_those_that_import_linter_checks(container, listed):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [layers] = [
        contract["layers"]
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract.get("containers") == [container]
    ]
    page = (ROOT / "docs/architecture.md").read_text()
    assert "```\n" + "\n".join(layers[:listed]) + "\n" in page, "copy them from pyproject.toml"
