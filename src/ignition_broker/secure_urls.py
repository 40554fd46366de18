"""Which URLs may carry a secret. Pure."""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult

LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def is_https_or_loopback(url: SplitResult) -> bool:
    """Whether ``url`` is https, or http to this very machine, where nobody else can listen."""
    return url.scheme == "https" or (url.scheme == "http" and url.hostname in LOOPBACK_HOSTS)
