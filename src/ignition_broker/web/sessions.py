"""The admin's browser session, the browser's own mark, and tokens against forged forms.

All are cookies; over https their names bear the ``__Host-`` prefix, so that no other host of the
domain can set them (RFC 6265bis section 4.1.3.2).
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from fastapi import Request
from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.responses import Response

from ignition_broker.broker.access import Access, key_hash
from ignition_broker.broker.errors import BrokerError, Unauthenticated
from ignition_broker.cipher import Cipher, is_same_secret
from ignition_broker.model import Caller, Scope

SESSION_SECONDS = 8 * 3600
_BROWSER = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Session:
    caller: Caller
    csrf_token: str


class Sessions:
    """Signs with a key derived from the newest encryption key, believes those of all."""

    def __init__(self, cipher: Cipher, access: Access, *, is_https: bool) -> None:
        keys = cipher.derived_keys("ignition-broker session")
        # itsdangerous signs with the last key of its list.
        self._serializer = URLSafeTimedSerializer(list(reversed(keys)), salt="session")
        self._access = access
        self._is_https = is_https
        prefix = "__Host-" if is_https else ""
        self.session_cookie = f"{prefix}ignition-broker-session"
        self.browser_cookie = f"{prefix}ignition-broker-browser"

    async def sign_in(self, key: str, response: Response) -> Caller:
        """Raises `Unauthenticated` for a key that is no admin's."""
        caller = await self._access.authenticate(key.encode())
        if not caller.may(Scope.ADMIN):
            raise Unauthenticated("This key is not an admin's.", key=caller.name)
        signed = self._serializer.dumps([key_hash(key).hex(), secrets.token_urlsafe(16)])
        self._set(response, self.session_cookie, str(signed), SESSION_SECONDS)
        return caller

    def sign_out(self, response: Response) -> None:
        self._set(response, self.session_cookie, "", 0)

    async def read(self, request: Request) -> Session | None:
        """The session, while its signature, its age and its API key are good."""
        cookie = request.cookies.get(self.session_cookie)
        if not cookie:
            return None
        try:
            hashed, nonce = self._serializer.loads(cookie, max_age=SESSION_SECONDS)
            caller = await self._access.authenticate_hash(bytes.fromhex(hashed))
        except (BadSignature, ValueError, TypeError, Unauthenticated):
            return None
        if not caller.may(Scope.ADMIN):
            return None
        return Session(caller, self._csrf_token(nonce))

    def csrf_for_browser(self, browser: str) -> str:
        """For forms that are shown before anybody signed in."""
        return self._csrf_token(f"browser {browser}")

    def browser(self, request: Request) -> str | None:
        """What marks this browser, if it has been here before."""
        mark = request.cookies.get(self.browser_cookie, "")
        return mark if _BROWSER.fullmatch(mark) else None

    def new_browser(self) -> str:
        return secrets.token_urlsafe(32)

    def mark_browser(self, response: Response, browser: str) -> None:
        self._set(response, self.browser_cookie, browser, 3600)

    def _csrf_token(self, nonce: str) -> str:
        return str(
            URLSafeTimedSerializer(self._serializer.secret_keys, salt="csrf")
            .make_signer("csrf")
            .get_signature(nonce.encode())
            .decode()
        )

    def _set(self, response: Response, name: str, value: str, seconds: int) -> None:
        response.set_cookie(
            name,
            value,
            max_age=seconds,
            path="/",
            secure=self._is_https,
            httponly=True,
            samesite="lax",
        )


def check_csrf(expected: str, given: str | None) -> None:
    """Raises `FormForged`."""
    if not given or not is_same_secret(expected, given):
        raise FormForged("This form is stale, or was not sent by this page; load it again.")


class FormForged(BrokerError):
    """A form without the token that its page held."""
