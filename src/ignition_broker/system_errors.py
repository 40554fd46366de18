"""What the operating system reports, by names that an operator can look up."""

from __future__ import annotations

import errno
import os
import re

SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC})
"""Of this machine or process, so that the other side has no part in them."""


def os_error_text(error: OSError) -> str:
    """Such as ``too many open files (EMFILE)``; of one without a number, its type's name."""
    number = _number(error)
    if number not in errno.errorcode:
        return type(error).__name__
    return f"{os.strerror(number).lower()} ({errno.errorcode[number]})"


def shortage_or_name(error: BaseException) -> str:
    """The shortage that caused it, however deep; else its type's name."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and _number(cause) in SHORTAGES:
            return os_error_text(cause)
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def _number(error: OSError) -> int:
    # A name with several addresses has an error for each, and asyncio puts their texts into one.
    found = re.search(r"\[Errno (\d+)\]", str(error))
    return int(found[1]) if found else error.errno or 0
