"""What a tenant's name and labels may be. Pure.

The rules for keys are those of Kubernetes' label names, so that labels can be carried over; values
may be any printable text, since people write customers' names and places into them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

MOST_LABELS: Final = 20
LONGEST_KEY: Final = 63
LONGEST_VALUE: Final = 200
LONGEST_NAME: Final = 200

KEY_PATTERN: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?"
LABEL_PATTERN: Final = f"{KEY_PATTERN}=.{{0,{LONGEST_VALUE}}}"
"""Of ``key=value``; that values are printable is more than a pattern says."""
_KEY = re.compile(KEY_PATTERN)

KEY_RULE: Final = (
    f"1 to {LONGEST_KEY} of letters, digits, '-', '_', '.' and '/', with a letter or digit at both "
    "ends"
)


class LabelRefused(ValueError):
    """Says which field is wrong and how to mend it."""


def check_name(name: str) -> str:
    """The name, if it may be one. Raises `LabelRefused`."""
    if not name.strip():
        raise LabelRefused("name: must not be empty; leave it out, or send null to clear it")
    if len(name) > LONGEST_NAME:
        raise LabelRefused(f"name: must have at most {LONGEST_NAME} characters")
    if not name.isprintable():
        raise LabelRefused("name: must hold printable characters alone, on one line")
    return name


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels, if they may be ones. Raises `LabelRefused`."""
    if len(labels) > MOST_LABELS:
        raise LabelRefused(f"labels: at most {MOST_LABELS} a tenant; leave some out")
    for key, value in labels.items():
        _check_label(key, value)
    return dict(labels)


def parse_labels(texts: list[str], field: str) -> dict[str, str]:
    """The labels that ``texts`` write as ``key=value``.

    ``field``: what messages call them. Raises `LabelRefused`, also where a key comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator:
            raise LabelRefused(f"{field}: must be key=value, such as tier=gold")
        if found.setdefault(key, value) != value:
            raise LabelRefused(f"{field}: has the key {_shown(key)} twice; name it once")
    return check_labels(found)


def _check_label(key: str, value: str) -> None:
    if not _KEY.fullmatch(key):
        raise LabelRefused(f"labels: the key {_shown(key)} must have {KEY_RULE}")
    if len(value) > LONGEST_VALUE:
        raise LabelRefused(f"labels.{key}: must have at most {LONGEST_VALUE} characters")
    if not value.isprintable():
        raise LabelRefused(f"labels.{key}: must hold printable characters alone, on one line")


def _shown(key: str) -> str:
    return repr(key[:LONGEST_KEY])
