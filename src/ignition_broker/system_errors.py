"""Errors of the operating system, by names that an operator can look up."""

from __future__ import annotations

import errno
import os
import re

SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC})
"""Causes in this machine or process, not in whoever is at the other end."""


def os_error_text(error: OSError) -> str:
    """Such as ``too many open files (EMFILE)``; for an error without a number, its type's name."""
    number = _number(error)
    if number not in errno.errorcode:
        return type(error).__name__
    return f"{os.strerror(number).lower()} ({errno.errorcode[number]})"


def shortage_or_name(error: BaseException) -> str:
    """The text of the shortage among the causes of ``error``; without one, its type's name."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and _number(cause) in SHORTAGES:
            return os_error_text(cause)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _number(error: OSError) -> int:
    # Where a name has several addresses, asyncio joins the errors of all into the text of one.
    found = re.search(r"\[Errno (\d+)\]", str(error))
    return int(found[1]) if found else error.errno or 0
