"""`docs/glossary.md` explains every log event that the code writes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def written() -> set[str]:
    events = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log"), attr=level),
                    args=[ast.Constant(value=str(event)), *_],
                ) if level in LEVELS:
                    events.add(event)
    return events


def test_the_glossary_explains_every_log_event():
    section = (ROOT / "docs/glossary.md").read_text().split("\n## Log events\n")[1]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    explained = [event for row in rows for event in re.findall(r"`([a-z_]+)`", row)]
    assert len(explained) == len(set(explained))
    assert written() - set(explained) == set()
