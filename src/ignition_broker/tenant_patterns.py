"""Where the tenant patterns of an API key, or of a rule for JWTs, are matched. Pure.

A pattern is a tenant id in which ``*`` stands for any characters and ``?`` for any one, such as
``beta-*``. The pattern ``*`` covers every tenant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ignition_broker.bounded_map import BoundedMap
from ignition_broker.wildcards import matches_wildcards

ANY_TENANT = "*"
_PATTERN = re.compile(r"[a-z0-9*?][a-z0-9._*?-]{0,62}")
_MOST_REMEMBERED = 1000


def is_tenant_pattern(text: str) -> bool:
    """Whether ``text`` is a tenant id or a pattern of one."""
    return _PATTERN.fullmatch(text) is not None


class TenantPatterns:
    """The tenants that one caller covers.

    Answers are remembered for at most `_MOST_REMEMBERED` tenants, since every call asks.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = tuple(patterns)
        self._covers_all = ANY_TENANT in self._patterns
        self._remembered: BoundedMap[str, bool] = BoundedMap(_MOST_REMEMBERED)

    def cover(self, tenant: str) -> bool:
        """Whether any of the patterns matches the tenant id ``tenant``."""
        if self._covers_all:
            return True
        covered = self._remembered.get(tenant)
        if covered is None:
            covered = any(matches_wildcards(pattern, tenant) for pattern in self._patterns)
            self._remembered.store(tenant, covered)
        return covered
