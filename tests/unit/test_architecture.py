"""The maps of the code, in `docs/`, name files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "ignition_broker"
_PATH = re.compile(r"[\w./]*\w(?:\.py|/(?=`))")


@pytest.mark.parametrize("page", ["architecture.md", "glossary.md"])
def test_every_path_on_the_page_exists(page):
    text = (ROOT / "docs" / page).read_text().replace("src/ignition_broker/", "")
    named = set(_PATH.findall(text))
    assert len(named) > 20
    assert [each for each in sorted(named) if not is_there(each)] == []


def is_there(path: str) -> bool:
    return any((folder / path).exists() for folder in (SOURCE, ROOT))
