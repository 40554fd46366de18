"""Readable names for the error codes of Postgres and of sockets."""

from __future__ import annotations

import re
import socket
import ssl

import asyncpg

from ignition_broker.system_errors import os_error_text

_CONDITIONS: dict[str, str] = {
    getattr(kind, "sqlstate"): kind.__name__  # noqa: B009  # mypy: unknown to the driver's stubs
    for kind in reversed(vars(asyncpg).values())
    if isinstance(kind, type) and getattr(kind, "sqlstate", None)
}

CLASSES = {
    "03": "SQL statement not yet complete",
    "08": "connection exception",
    "09": "triggered action exception",
    "0A": "feature not supported",
    "0B": "invalid transaction initiation",
    "0F": "locator exception",
    "0L": "invalid grantor",
    "0P": "invalid role specification",
    "0Z": "diagnostics exception",
    "10": "XQuery error",
    "20": "case not found",
    "21": "cardinality violation",
    "22": "data exception",
    "23": "integrity constraint violation",
    "24": "invalid cursor state",
    "25": "invalid transaction state",
    "26": "invalid SQL statement name",
    "27": "triggered data change violation",
    "28": "invalid authorization specification",
    "2B": "dependent privilege descriptors still exist",
    "2D": "invalid transaction termination",
    "2F": "SQL routine exception",
    "34": "invalid cursor name",
    "38": "external routine exception",
    "39": "external routine invocation exception",
    "3B": "savepoint exception",
    "3D": "invalid catalog name",
    "3F": "invalid schema name",
    "40": "transaction rollback",
    "42": "syntax error or access rule violation",
    "44": "WITH CHECK OPTION violation",
    "53": "insufficient resources",
    "54": "program limit exceeded",
    "55": "object not in prerequisite state",
    "57": "operator intervention",
    "58": "system error",
    "72": "snapshot failure",
    "F0": "configuration file error",
    "HV": "foreign data wrapper error",
    "P0": "PL/pgSQL error",
    "XX": "internal error",
}
"""The classes of SQLSTATE: its first two characters (PostgreSQL documentation, appendix A)."""


def condition(sqlstate: str) -> str:
    """The name of an SQLSTATE, such as ``lock not available (SQLSTATE 55P03)``.

    An unknown code is named by its class. Postgres' own message is left out, because it may quote
    values.
    """
    is_whole_class = sqlstate.endswith("000") or sqlstate not in _CONDITIONS
    named = CLASSES.get(sqlstate[:2], "unknown condition")
    text = named if is_whole_class else _words(_CONDITIONS[sqlstate])
    return f"{text} (SQLSTATE {sqlstate})"


def broken_connection(error: BaseException) -> str:
    """Why a connection failed or broke, such as ``too many open files (EMFILE)``."""
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {getattr(error, 'reason', None) or type(error).__name__}"
    if isinstance(error, socket.gaierror):
        return f"its host is not found ({type(error).__name__})"
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and (text := os_error_text(error)) != type(error).__name__:
        return text
    return f"the connection failed ({type(error).__name__})"


def _words(name: str) -> str:
    """``LockNotAvailableError`` becomes ``lock not available``. Acronyms such as SQL stay."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|[a-z]+", name.removesuffix("Error"))
    return " ".join(word if len(word) > 1 and word.isupper() else word.lower() for word in words)
