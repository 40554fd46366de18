"""Proof Key for Code Exchange, method S256 (RFC 7636)."""

from __future__ import annotations

import hashlib
import secrets
from base64 import urlsafe_b64encode

from ignition_broker.oauth.tokens import CodeVerifier


def new_code_verifier() -> CodeVerifier:
    """256 random bits as 43 unreserved characters (RFC 7636 section 4.1)."""
    return CodeVerifier(secrets.token_urlsafe(32))


def code_challenge(verifier: CodeVerifier) -> str:
    """BASE64URL(SHA256(verifier)), unpadded (RFC 7636 section 4.2)."""
    digest = hashlib.sha256(verifier.reveal().encode("ascii")).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
