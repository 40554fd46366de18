"""Cookies that a browser holds: its session, its mark, a sign-on under way."""

from __future__ import annotations

import json
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from fastapi import Request
from starlette.responses import Response

from ignition_broker.broker.admins.sessions import LIFETIME_SECONDS, AdminSession, AdminSessions
from ignition_broker.broker.admins.single_sign_on import SIGN_ON_SECONDS, Identity, PendingSignOn
from ignition_broker.broker.errors import Unauthenticated
from ignition_broker.cipher import Cipher
from ignition_broker.model import Actor
from ignition_broker.oauth.tokens import CodeVerifier
from ignition_broker.storage.sessions import ListedSession
from ignition_broker.web import csrf as csrf_tokens
from ignition_broker.web.authorization import address_of
from ignition_broker.web.cookies import Cookie

_RANDOM = re.compile(r"[A-Za-z0-9_-]{43}")
BROWSER_SECONDS = 3600


class SessionEnded(Unauthenticated):
    """The session was signed out, is too old, or was idle for too long."""


class BrowserSessions:
    """Sets and reads the cookies; `AdminSessions` keeps what they stand for."""

    def __init__(self, cipher: Cipher, admins: AdminSessions, *, is_https: bool) -> None:
        self._admins = admins
        self._form_keys = cipher.derived_keys("ignition-broker form")
        self._seal = MultiFernet(
            [Fernet(urlsafe_b64encode(key)) for key in cipher.derived_keys("ignition-broker seal")]
        )
        self._session = Cookie("ignition-broker-session", is_https=is_https)
        self._browser = Cookie("ignition-broker-browser", is_https=is_https)
        self._sign_on = Cookie("ignition-broker-sign-on", is_https=is_https)

    async def sign_in_by_key(self, request: Request, response: Response, key: str) -> None:
        """Begins a session and sets its cookie on ``response``.

        Raises `Unauthenticated` for a key that is not an admin's, or `TooManyAttempts`.
        """
        token = await self._admins.sign_in_by_key(
            key,
            address_of(request.scope),
            replacing=self._session.read(request),
            request_id=request.state.request_id,
        )
        self._session.set(response, token, LIFETIME_SECONDS)

    async def sign_in_by_identity(
        self, request: Request, response: Response, identity: Identity
    ) -> None:
        """Begins a session and sets its cookie on ``response``. Raises `SignOnFailed` where the
        sign-on was used before."""
        token = await self._admins.sign_in_by_identity(
            identity, replacing=self._session.read(request), request_id=request.state.request_id
        )
        self._session.set(response, token, LIFETIME_SECONDS)

    async def sign_out(self, request: Request, response: Response) -> None:
        """Ends the session, if there is one, and removes its cookie."""
        token = self._session.read(request)
        if token is not None:
            await self._admins.sign_out(token, request_id=request.state.request_id)
        self._session.clear(response)

    async def read(self, request: Request) -> AdminSession | None:
        """The session of the browser; None where it has none that lives."""
        token = self._session.read(request) or ""
        # A value that can't be one of ours is not looked up in the database.
        return await self._admins.read(token) if _RANDOM.fullmatch(token) else None

    async def of_form(self, request: Request, csrf: str) -> AdminSession:
        """The session of a form with its page's CSRF token. Raises `SessionEnded` or
        `FormForged`."""
        session = await self.read(request)
        if session is None:
            raise SessionEnded("It was too old, idle for too long, or ended elsewhere.")
        csrf_tokens.check(request, csrf, [session.csrf_token])
        return session

    async def every(self) -> Sequence[ListedSession]:
        """The sessions of all admins, newest first."""
        return await self._admins.every()

    async def end(self, token_hash: bytes, actor: Actor) -> None:
        """Ends any admin's session. Raises `NotFound` where it has ended before."""
        await self._admins.end(token_hash, actor)

    def browser(self, request: Request) -> str | None:
        """The mark in this browser's cookie, if it has been here before."""
        mark = self._browser.read(request) or ""
        return mark if _RANDOM.fullmatch(mark) else None

    def new_browser(self) -> str:
        """A new mark: 256 random bits."""
        return secrets.token_urlsafe(32)

    def mark_browser(self, response: Response, browser: str) -> None:
        self._browser.set(response, browser, BROWSER_SECONDS)

    def csrf_for_browser(self, browser: str) -> str:
        """The CSRF token of forms that are shown before anybody has signed in."""
        return csrf_tokens.for_browser(self._form_keys[0], browser)

    def check_browser_form(self, request: Request, csrf: str) -> None:
        """Raises `FormForged` unless the form has the CSRF token of a page shown to this
        browser."""
        browser = self.browser(request)
        tokens = []
        if browser is not None:
            tokens = [csrf_tokens.for_browser(key, browser) for key in self._form_keys]
        csrf_tokens.check(request, csrf, tokens)

    def keep_sign_on(self, response: Response, pending: PendingSignOn) -> None:
        """Keeps the sign-on in a cookie, encrypted since it holds the code verifier."""
        fields = [
            pending.state,
            pending.nonce,
            pending.code_verifier.reveal(),
            pending.return_to,
            pending.begun_at,
            pending.must_authenticate,
        ]
        sealed = self._seal.encrypt(json.dumps(fields).encode())
        self._sign_on.set(response, sealed.decode("ascii"), SIGN_ON_SECONDS)

    def kept_sign_on(self, request: Request) -> PendingSignOn | None:
        """The sign-on that this browser began; None where it has none or one that can't be read."""
        sealed = self._sign_on.read(request)
        try:
            fields = json.loads(self._seal.decrypt(sealed or ""))
        except (InvalidToken, ValueError):
            return None
        state, nonce, verifier, return_to, begun_at, must_authenticate = fields
        return PendingSignOn(
            state, nonce, CodeVerifier(verifier), return_to, begun_at, must_authenticate
        )

    def forget_sign_on(self, response: Response) -> None:
        self._sign_on.clear(response)
