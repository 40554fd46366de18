"""What a browser holds: its session, its own mark, a sign-on under way; and tokens against forged
forms."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from base64 import urlsafe_b64encode

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from fastapi import Request
from starlette.responses import Response

from ignition_broker.broker.admins.sessions import LIFETIME_SECONDS, AdminSession, AdminSessions
from ignition_broker.broker.admins.single_sign_on import SIGN_ON_SECONDS, Identity, PendingSignOn
from ignition_broker.broker.errors import BrokerError, Unauthenticated
from ignition_broker.cipher import Cipher, is_same_secret
from ignition_broker.oauth.tokens import CodeVerifier
from ignition_broker.web.authorization import address_of
from ignition_broker.web.cookies import Cookie

_RANDOM = re.compile(r"[A-Za-z0-9_-]{43}")
BROWSER_SECONDS = 3600


class FormForged(BrokerError):
    """A form without the token that its page held, or sent by a page of another site."""


class SessionEnded(Unauthenticated):
    """Signed out, too old, or idle for too long."""


class Sessions:
    """Cookies; what they stand for is kept by `AdminSessions`."""

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
        """Raises `Unauthenticated` for a key that is no admin's, or `TooManyAttempts`."""
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
        """Raises `SignOnFailed` where it was used before."""
        token = await self._admins.sign_in_by_identity(
            identity, replacing=self._session.read(request), request_id=request.state.request_id
        )
        self._session.set(response, token, LIFETIME_SECONDS)

    async def sign_out(self, request: Request, response: Response) -> None:
        token = self._session.read(request)
        if token is not None:
            await self._admins.sign_out(token, request_id=request.state.request_id)
        self._session.clear(response)

    async def read(self, request: Request) -> AdminSession | None:
        token = self._session.read(request) or ""
        # What was never one of ours costs the database nothing.
        return await self._admins.read(token) if _RANDOM.fullmatch(token) else None

    async def of_form(self, request: Request, csrf: str) -> AdminSession:
        """The session of a form that a page of its own sent; raises `SessionEnded` or
        `FormForged`."""
        session = await self.read(request)
        if session is None:
            raise SessionEnded("It was too old, idle for too long, or ended elsewhere.")
        check_site(request)
        if not is_same_secret(session.csrf_token, csrf.encode()):
            raise FormForged(_STALE)
        return session

    def browser(self, request: Request) -> str | None:
        """What marks this browser, if it has been here before."""
        mark = self._browser.read(request) or ""
        return mark if _RANDOM.fullmatch(mark) else None

    def new_browser(self) -> str:
        return secrets.token_urlsafe(32)

    def mark_browser(self, response: Response, browser: str) -> None:
        self._browser.set(response, browser, BROWSER_SECONDS)

    def csrf_for_browser(self, browser: str) -> str:
        """For forms that are shown before anybody signed in."""
        return _browser_token(self._form_keys[0], browser)

    def check_browser_form(self, request: Request, csrf: str) -> None:
        """Raises `FormForged` unless a page that this browser was shown sent the form."""
        check_site(request)
        browser = self.browser(request)
        if browser is None or not any(
            is_same_secret(_browser_token(key, browser), csrf.encode()) for key in self._form_keys
        ):
            raise FormForged(_STALE)

    def keep_sign_on(self, response: Response, pending: PendingSignOn) -> None:
        """Sealed, since it holds the code verifier."""
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


_STALE = "It is too old, or was not sent by its own page; load that again."


def check_site(request: Request) -> None:
    """Raises `FormForged` for a form that the browser says another site's page sent.

    Sec-Fetch-Site alone: under our Referrer-Policy a browser sends `Origin: null` with every form.
    """
    if request.headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
        raise FormForged("This form was sent by a page of another site.")


def _browser_token(key: bytes, browser: str) -> str:
    return hmac.new(key, browser.encode(), hashlib.sha256).hexdigest()
