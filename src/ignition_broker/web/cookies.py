"""Cookies that are set and read strictly.

Over https their names have the ``__Host-`` prefix, so that no other host of the domain and no other
path can set them (RFC 6265bis section 4.1.3.2).
"""

from __future__ import annotations

from fastapi import Request
from starlette.responses import Response


class Cookie:
    """One cookie: its name and its attributes."""

    def __init__(self, name: str, *, is_https: bool) -> None:
        self.name = f"__Host-{name}" if is_https else name
        self._is_https = is_https

    def read(self, request: Request) -> str | None:
        """The value; None where the cookie is missing, empty, or sent twice, since then somebody
        else set one of the two.

        Strips spaces and tabs alone, as the specification does: to a browser, a name behind other
        white space is another name, which the ``__Host-`` prefix does not protect.
        """
        name = self.name.encode("ascii")
        values = [
            value
            for header, line in request.scope["headers"]
            if header == b"cookie"
            for found, separator, value in (part.partition(b"=") for part in line.split(b";"))
            if separator and found.strip(b" \t") == name
        ]
        if len(values) != 1:
            return None
        return str(values[0].strip(b" \t").decode("latin-1")) or None

    def set(self, response: Response, value: str, seconds: int) -> None:
        """Keeps the cookie for so many ``seconds``. SameSite is Lax, since both callbacks are
        reached from another site."""
        response.set_cookie(
            self.name,
            value,
            max_age=seconds,
            path="/",
            secure=self._is_https,
            httponly=True,
            samesite="lax",
        )

    def clear(self, response: Response) -> None:
        """Removes the cookie from the browser."""
        self.set(response, "", 0)
