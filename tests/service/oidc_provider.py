"""An identity provider on a real port, with OpenID Connect's code flow, and ways to misbehave."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable
from html import escape
from typing import Any
from urllib.parse import unquote_plus, urlencode

import httpx
import uvicorn
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from tests.conftest import free_port, wait_until

ADMIN = {"sub": "u-1", "email": "jo@example.com", "groups": ["staff", "broker-admins"]}

Claims = dict[str, Any]


class OidcProvider:
    """``person`` is who signs on; whoever did once is remembered until asked with prompt=login."""

    def __init__(self) -> None:
        self.port = free_port()
        self.issuer = f"http://localhost:{self.port}"
        self.client_id = "broker"
        self.client_secret = secrets.token_urlsafe(24)
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
        self.asked: list[dict[str, str]] = []
        self.id_tokens: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        self.reset()
        self._app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._configuration),
                Route("/jwks", self._jwks),
                Route("/authorize", self._authorize),
                Route("/decide", self._decide),
                Route("/token", self._token, methods=["POST"]),
            ]
        )
        self.listen()

    def reset(self) -> None:
        self.person: Claims = dict(ADMIN)
        self.auth_time: int | None = None
        self.forgets_auth_time = False
        self.ignores_prompt = False
        self.callback_issuer: str | None = None
        self.change: Callable[[Claims], None] = lambda claims: None
        self.sign: Callable[[Claims], str] = self.signed
        self.token_answer: Response | None = None

    def listen(self) -> None:
        config = uvicorn.Config(self._app, host="127.0.0.1", port=self.port, log_config=None)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        wait_until(lambda: self._server.started, what="the identity provider's start")

    def hang_up(self) -> None:
        self._server.should_exit = True
        self._thread.join(5)

    def signed(self, claims: Claims, key: RSAKey | None = None, kid: str = "one") -> str:
        return jwt.encode({"alg": "RS256", "kid": kid}, claims, key or self.key)

    def signed_by_nobody(self, claims: Claims) -> str:
        return f"{_part({'alg': 'none'})}.{_part(claims)}."

    def signed_with_what_all_know(self, claims: Claims) -> str:
        """The public key taken for an HMAC's secret."""
        signed = f"{_part({'alg': 'HS256', 'kid': 'one'})}.{_part(claims)}"
        public = self.key.as_pem(private=False)
        return f"{signed}.{_base64(hmac.digest(public, signed.encode(), 'sha256'))}"

    async def _configuration(self, _request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
            }
        )

    async def _jwks(self, _request: Request) -> Response:
        return JSONResponse(KeySet([self.key]).as_dict(private=False))

    async def _authorize(self, request: Request) -> Response:
        query = dict(request.query_params)
        assert query["client_id"] == self.client_id
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        self.asked.append(query)
        fields = "".join(
            f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
            for name, value in query.items()
        )
        return HTMLResponse(
            f"<link rel=icon href='data:,'><h1>Identity provider</h1><form action=/decide>{fields}"
            f"<button id=sign-on>Sign on as {escape(self.person['sub'])}</button></form>"
        )

    async def _decide(self, request: Request) -> Response:
        """The click: a code, by a redirect to where it was asked for."""
        query = dict(request.query_params)
        is_asked_anew = query.get("prompt") == "login" and not self.ignores_prompt
        if self.auth_time is None or is_asked_anew:
            self.auth_time = int(time.time())
        code = secrets.token_urlsafe(24)
        self._codes[code] = query
        answer = {"code": code, "state": query["state"]}
        if self.callback_issuer is not None:
            answer["iss"] = self.callback_issuer
        return RedirectResponse(f"{query['redirect_uri']}?{urlencode(answer)}", 303)

    async def _token(self, request: Request) -> Response:
        if self.token_answer is not None:
            return self.token_answer
        form = {name: str(value) for name, value in (await request.form()).items()}
        scheme, _, pair = request.headers["authorization"].partition(" ")
        shown = base64.b64decode(pair).decode()
        assert scheme == "Basic"
        assert shown.split(":") == [self.client_id, unquote_plus(self.client_secret)]
        begun = self._codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = _base64(digest)
        if (
            begun is None
            or begun["redirect_uri"] != form["redirect_uri"]
            or begun["code_challenge"] != challenge
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        id_token = self.sign(self._claims(begun))
        self.id_tokens.append(id_token)
        return JSONResponse(
            {"access_token": secrets.token_urlsafe(), "token_type": "Bearer", "id_token": id_token}
        )

    def _claims(self, begun: dict[str, str]) -> Claims:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": self.client_id,
            "iat": now,
            "exp": now + 300,
            "nonce": begun["nonce"],
            **self.person,
        }
        if not self.forgets_auth_time:
            claims["auth_time"] = self.auth_time
        self.change(claims)
        return claims


def _part(fields: Claims) -> str:
    return _base64(json.dumps(fields).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def sign_on(location: str) -> str:
    """The click on the provider's page; the callback's address."""
    with httpx.Client() as browser:
        shown = browser.get(location)
        assert shown.status_code == 200
        answer = browser.get(location.replace("/authorize?", "/decide?"))
        assert answer.status_code == 303
        return answer.headers["location"]
