"""Ignition's answer, encrypted for the grant's row, and as callers get it."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from ignition_broker.broker.grants.token_outcomes import Renewed
from ignition_broker.cipher import Cipher
from ignition_broker.model import IssuedToken
from ignition_broker.oauth.tokens import ENDLESS_LIFETIME_SECONDS, RefreshToken
from ignition_broker.storage.sealed_tokens import SealedTokens, Stored

LIVES_FOR_NOTHING = "Ignition's token lives for 0 seconds"

log = structlog.get_logger(__name__)


def seal(
    cipher: Cipher, tenant: str, renewed: Renewed, refresh_token: RefreshToken, scope: str
) -> SealedTokens:
    """Encrypts the answer's tokens for the tenant's row.

    ``refresh_token``: the one in force from now on, which the answer need not have brought; empty
    where Ignition gave none. ``scope``: as granted, or else as requested.
    """
    answer = renewed.answer
    is_endless = not answer.lifetime_is_known and not refresh_token.reveal()
    return SealedTokens(
        access_token=cipher.encrypt(tenant, "access_token", answer.access_token.reveal()),
        refresh_token=cipher.encrypt(tenant, "refresh_token", refresh_token.reveal()),
        token_type=answer.token_type,
        scope=scope,
        lifetime_seconds=ENDLESS_LIFETIME_SECONDS if is_endless else answer.lifetime_seconds,
        key_fingerprint=cipher.fingerprint,
        has_refresh_token=bool(refresh_token.reveal()),
        is_rotated=answer.refresh_token is not None,
        refresh_lifetime_seconds=answer.refresh_lifetime_seconds,
    )


def issued_token(tenant: str, renewed: Renewed, scope: str, stored: Stored) -> IssuedToken:
    """The answer's access token, as callers get it once it is stored."""
    answer = renewed.answer
    return IssuedToken(
        tenant=tenant,
        access_token=answer.access_token,
        token_type=answer.token_type,
        scope=scope,
        expires_at=stored.expires_at,
        lifetime_seconds=answer.lifetime_seconds,
        dies_at=renewed.requested_at + answer.lifetime_seconds,
        version=stored.version,
    )


def log_flaws(tenant: str, flaws: Sequence[str]) -> dict[str, object]:
    """Logs what was wrong with an answer that was usable all the same.

    Returns what an audit event's detail says of it: nothing where there were no flaws.
    """
    if not flaws:
        return {}
    log.warning("token_answer_flawed", tenant=tenant, flaws=list(flaws))
    return {"flaws": list(flaws)}
