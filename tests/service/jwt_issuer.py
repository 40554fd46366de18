"""An issuer of JWTs on a real port, with keys to rotate and ways to misbehave."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from typing import Any

import uvicorn
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from tests.conftest import free_port, wait_until

AUDIENCE = "ignition-broker"
Key = RSAKey | ECKey | OKPKey | OctKey


class JwtIssuer:
    """``keys`` are published as they are; ``requests`` are paths with their Authorization."""

    def __init__(self, **server: Any) -> None:
        self.port = free_port()
        self.issuer = f"http{'s' if server else ''}://localhost:{self.port}"
        self.key = rsa("one")
        self.requests: list[tuple[str, str | None]] = []
        self._server_options = server
        self.reset()
        self._app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._configuration),
                Route("/jwks", self._jwks),
                Route("/elsewhere", self._jwks),
            ]
        )
        self.listen()

    def reset(self) -> None:
        self.keys: list[dict[str, Any]] = [self.key.as_dict(private=False)]
        self.document: dict[str, Any] = {}
        self.answer: Response | None = None
        self.delay_seconds = 0.0

    def listen(self) -> None:
        options = {"host": "127.0.0.1", "port": self.port, "log_config": None}
        self._server = uvicorn.Server(uvicorn.Config(self._app, **options, **self._server_options))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        wait_until(lambda: self._server.started, what="the issuer's start")

    def hang_up(self) -> None:
        self._server.should_exit = True
        self._thread.join(5)

    def fetches(self, path: str = "/jwks") -> int:
        return sum(asked == path for asked, _authorization in self.requests)

    def claims(self, **more: Any) -> dict[str, Any]:
        """``None`` leaves one out."""
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": AUDIENCE, "iat": now, "exp": now + 600, **more}
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self,
        sub: str | None = "invoicing",
        *,
        key: Key | None = None,
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        key = key or self.key
        header = {"alg": "RS256", "typ": "JWT", "kid": key.kid, **(header or {})}
        header = {name: value for name, value in header.items() if value is not None}
        payload = json.dumps(self.claims(sub=sub, **claims))
        return sign(header, payload.encode(), key)

    async def _configuration(self, request: Request) -> Response:
        self._note(request)
        document = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks", **self.document}
        return JSONResponse(document)

    async def _jwks(self, request: Request) -> Response:
        self._note(request)
        await asyncio.sleep(self.delay_seconds)
        return self.answer or JSONResponse({"keys": self.keys})

    def _note(self, request: Request) -> None:
        self.requests.append((request.url.path, request.headers.get("authorization")))


def rsa(kid: str, bits: int = 2048) -> RSAKey:
    return RSAKey.generate_key(bits, {"kid": kid, "use": "sig"})


def sign(header: dict[str, Any], payload: bytes, key: Key) -> str:
    registry = jws.JWSRegistry(algorithms=[header["alg"]], strict_check_header=False)
    registry.max_header_length = 1 << 16
    return jws.serialize_compact(header, payload, key, registry=registry)


def encoded(part: object) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    return f"{encoded(header)}.{encoded(claims)}."


def signed_by_hmac(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    """By hand: a library would refuse to take a public key for a secret."""
    text = f"{encoded(header)}.{encoded(claims)}"
    return f"{text}.{encoded(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def signed_by_hand(header: dict[str, Any], payload: bytes, key: RSAKey) -> str:
    """RS256, with headers that a library would not write."""
    text = f"{encoded(header)}.{encoded(payload)}"
    private = key.private_key
    assert private is not None
    signature = private.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{text}.{encoded(signature)}"


def redirect_to(url: str) -> Response:
    return RedirectResponse(url, 302)
