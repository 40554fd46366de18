"""Files, tests, settings and metrics that the security pages name exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("SECURITY.md", "docs/threat-model.md")
WHERE_FILES_ARE = ("", "src/ignition_broker/", "tests/")
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)#]+)\)")
_TEST = re.compile(r"test_\w+")
_FILE = re.compile(r"[\w./-]+\.(?:py|html|js|md|txt|yml|yaml|conf|toml|in)|Dockerfile|Makefile")
_SETTING = re.compile(r"(?:BROKER|IGNITION)_[A-Z0-9_]+")
_METRIC = re.compile(r"broker_[a-z0-9_]+")


def cited(text: str) -> set[str]:
    # Fenced blocks are commands, not citations.
    return set(_CODE.findall(re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)))


@cache
def defined_tests() -> frozenset[str]:
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
    return frozenset(found)


@cache
def settings() -> frozenset[str]:
    return frozenset(_SETTING.findall((ROOT / ".env.example").read_text()))


@cache
def source() -> str:
    return "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))


def is_there(name: str) -> bool:
    """Whether what is cited exists; True for what is no citation of a kind looked at here."""
    if _TEST.fullmatch(name):
        return name in defined_tests()
    if _FILE.fullmatch(name):
        return any((ROOT / folder / name).is_file() for folder in WHERE_FILES_ARE)
    if _SETTING.fullmatch(name):
        return name in settings() or name == "BROKER_SECRETS_DIR"
    if _METRIC.fullmatch(name):
        # The library adds the suffix of counters.
        return f'"{name.removesuffix("_total")}' in source()
    return True


@pytest.mark.parametrize("page", PAGES)
def test_what_the_security_pages_cite_is_there(page):
    names = cited((ROOT / page).read_text())
    assert sum(bool(_FILE.fullmatch(name)) for name in names) > 3, "the page cites files"
    assert sorted(name for name in names if not is_there(name)) == []


@pytest.mark.parametrize("page", PAGES)
def test_what_the_security_pages_link_to_is_there(page):
    folder = (ROOT / page).parent
    links = [link for link in _LINK.findall((ROOT / page).read_text()) if "://" not in link]
    assert links
    assert [link for link in links if not (folder / link).exists()] == []


@pytest.mark.parametrize(
    "made_up", ["test_that_nobody_wrote", "web/nowhere.py", "BROKER_NO_SUCH", "broker_none_total"]
)
def test_a_missing_reference_is_found(made_up):
    assert not is_there(made_up)


def test_every_threat_names_code_and_a_test_or_says_why_not():
    """A threat's row: number, threat, what meets it, code, test, what is left."""
    text = (ROOT / "docs/threat-model.md").read_text()
    rows = re.findall(r"^\| (T\d+) \|(.*)\|$", text, flags=re.MULTILINE)
    assert len(rows) > 30
    assert len({number for number, _row in rows}) == len(rows)
    for number, row in rows:
        cells = row.split("|")
        assert len(cells) == 5, number
        _threat, _met, code, test, left = (cell.strip() for cell in cells)
        assert _CODE.search(code) or code.startswith("operator"), number
        assert _TEST.search(test) or test.startswith("none: "), number
        assert left, number
