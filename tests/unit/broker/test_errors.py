"""The drawn tree of errors is the tree of the classes."""

from __future__ import annotations

import importlib
import pkgutil
import re

import ignition_broker
from ignition_broker.broker import errors
from ignition_broker.broker.errors import BrokerError

_LINE = re.compile(
    r"^(?P<indent>[│ ]*(?:├── |└── )?)(?P<name>[A-Z]\w+)(?: +\((?P<module>[\w.]+)\))?"
)
_STEP = 4


def drawn() -> dict[str, tuple[str | None, str]]:
    """By name: the class above, and the module."""
    lines = (errors.__doc__ or "").splitlines()
    found: dict[str, tuple[str | None, str]] = {}
    above: list[str] = []
    for line in lines[lines.index("BrokerError") :]:
        match = _LINE.match(line)
        if match is None:
            continue
        del above[len(match["indent"]) // _STEP :]
        module = match["module"] or "broker.errors"
        if module.startswith("grants."):
            module = f"broker.{module}"
        found[match["name"]] = (above[-1] if above else None, f"ignition_broker.{module}")
        above.append(match["name"])
    return found


def defined() -> dict[str, tuple[str | None, str]]:
    for module in pkgutil.walk_packages(ignition_broker.__path__, "ignition_broker."):
        if module.name.split(".")[1] in ("broker", "proxy", "web"):
            importlib.import_module(module.name)
    found: dict[str, tuple[str | None, str]] = {"BrokerError": (None, BrokerError.__module__)}
    kinds = [BrokerError]
    while kinds:
        above = kinds.pop()
        for kind in above.__subclasses__():
            if kind.__module__.startswith("ignition_broker."):
                found[kind.__name__] = (above.__name__, kind.__module__)
                kinds.append(kind)
    return found


def test_the_drawn_tree_has_every_error_below_its_own_kind():
    assert drawn() == defined()
