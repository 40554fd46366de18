"""Exchanges codes and refresh tokens for tokens, and ends grants."""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

from ignition_broker.fake_ignition.errors import OAuthError
from ignition_broker.fake_ignition.events import (
    AccessTokenExpired,
    AccessTokenIssued,
    CodeIssued,
    GrantOpened,
    GrantRefreshed,
    GrantRevoked,
    RefreshTokenIssued,
    RefreshTokenPresented,
    RefreshTokenSpent,
    fingerprint,
)
from ignition_broker.fake_ignition.faults import Fault
from ignition_broker.fake_ignition.ledger import Grant, RefreshToken
from ignition_broker.fake_ignition.practices import DEFAULT_PRACTICE
from ignition_broker.fake_ignition.provider import Provider

CODE_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


@dataclass(frozen=True)
class Issued:
    """Tokens issued to a client; the only place where they are in clear."""

    grant: str
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_in: int
    scope: str


def issue_code(
    provider: Provider,
    *,
    redirect_uri: str,
    scope: str,
    code_challenge: str | None,
    practice: str = DEFAULT_PRACTICE,
) -> str:
    """Issue a code for an approval. RFC 6749 section 4.1.2."""
    code = "fake_code_" + secrets.token_urlsafe(32)
    now = provider.clock()
    provider.ledger.record(
        CodeIssued(
            at=now,
            code_sha256=fingerprint(code),
            redirect_uri=redirect_uri,
            scope=scope,
            code_challenge=code_challenge,
            expires_at=now + provider.options.code_lifetime_seconds,
            practice=practice,
        )
    )
    return code


def redeem_code(
    provider: Provider, *, code: str, redirect_uri: str | None, code_verifier: str | None
) -> Issued:
    """Turn a code into a grant, once. RFC 6749 section 4.1.3, RFC 7636 section 4.6.

    Raises
    ------
    OAuthError
        ``invalid_grant``; a second use also ends what the first one began (section 4.1.2).
    """
    known = provider.ledger.find_code(code)
    if known is None:
        raise OAuthError("invalid_grant", "The code is unknown.")
    if known.grant is not None:
        provider.counters.code_reuses += 1
        revoke_grant(provider, known.grant, "code_reused")
        raise OAuthError("invalid_grant", "The code was used before.")
    if provider.clock() >= known.issued.expires_at:
        raise OAuthError("invalid_grant", "The code has expired.")
    if redirect_uri != known.issued.redirect_uri:
        raise OAuthError("invalid_grant", "redirect_uri is not the one of the request.")
    if not verifies(code_verifier, known.issued.code_challenge):
        raise OAuthError("invalid_grant", "code_verifier does not match the challenge.")
    provider.counters.code_exchanges += 1
    return open_grant(
        provider,
        scope=known.issued.scope,
        code_sha256=known.issued.code_sha256,
        practice=known.issued.practice,
    )


def verifies(code_verifier: str | None, code_challenge: str | None) -> bool:
    """Check the S256 proof; a verifier where no challenge was made is a downgrade.

    RFC 7636 section 4.6, RFC 9700 section 4.8.2.
    """
    if code_challenge is None or code_verifier is None:
        return code_challenge is None and code_verifier is None
    if not CODE_VERIFIER.fullmatch(code_verifier):
        return False
    digest = hashlib.sha256(code_verifier.encode()).digest()
    expected = base64.urlsafe_b64encode(digest).rstrip(b"=")
    return hmac.compare_digest(expected, code_challenge.encode())


def open_grant(
    provider: Provider,
    *,
    scope: str,
    code_sha256: str | None = None,
    practice: str = DEFAULT_PRACTICE,
) -> Issued:
    """Open a grant with its first tokens."""
    grant = "grant_" + secrets.token_hex(8)
    provider.ledger.record(GrantOpened(provider.clock(), grant, scope, code_sha256, practice))
    return issue_tokens(provider, grant, scope, issue_refresh_token(provider, grant))


def refresh_grant(
    provider: Provider,
    *,
    refresh_token: str,
    scope: str | None,
    fault: Fault | None,
    host: str = "",
) -> Issued:
    """Turn a refresh token into new tokens. RFC 6749 section 6.

    Raises
    ------
    OAuthError
        ``invalid_grant``: unknown, revoked, expired, or spent before; the last revokes the whole
        grant with its access tokens (RFC 9700 section 4.14.2).
        ``invalid_scope``: more than granted.
    """
    known = provider.ledger.find_refresh_token(refresh_token)
    if known is None:
        raise OAuthError("invalid_grant", "The refresh token is unknown.")
    now = provider.clock()
    provider.ledger.record(
        RefreshTokenPresented(
            at=now,
            refresh_token_sha256=known.sha256,
            answer_dropped=fault is not None and fault.drops_answer,
            answer_delayed=fault is not None and fault.delays_answer,
            host=host,
        )
    )
    grant = provider.ledger.grants[known.grant]
    if known.spent_at is not None:
        refuse_reuse_after_grace(provider, known, known.spent_at, now)
    if not grant.alive:
        raise OAuthError("invalid_grant", f"The grant was revoked: {grant.revoked_reason}.")
    if known.expires_at is not None and now >= known.expires_at:
        raise OAuthError("invalid_grant", "The refresh token has expired.")
    if scope is not None and not set(scope.split(" ")) <= set(grant.scope.split(" ")):
        raise OAuthError("invalid_scope", "The scope exceeds what was granted.")
    provider.ledger.record(GrantRefreshed(now, grant.id))
    provider.counters.refreshes += 1
    successor = None
    if provider.options.rotate_refresh_tokens:
        if known.spent_at is None:
            provider.ledger.record(RefreshTokenSpent(now, known.sha256))
        successor = issue_refresh_token(provider, grant.id)
    if provider.options.ends_earlier_access_tokens:
        end_access_tokens(provider, grant, now)
    return issue_tokens(provider, grant.id, scope or grant.scope, successor)


def end_access_tokens(provider: Provider, grant: Grant, now: float) -> None:
    """Stop accepting the access tokens of a grant; those before the newest have ended already."""
    newest = grant.access_tokens[-1]
    if provider.ledger.is_live(newest, now):
        provider.ledger.record(AccessTokenExpired(now, newest.sha256))


def refuse_reuse_after_grace(
    provider: Provider, known: RefreshToken, spent_at: float, now: float
) -> None:
    """Count a second presentation of a spent refresh token and, past the grace, end its grant."""
    provider.counters.refresh_token_reuses += 1
    if now - spent_at >= provider.options.reuse_grace_seconds:
        revoke_grant(provider, known.grant, "refresh_token_reused")
        raise OAuthError("invalid_grant", "The refresh token was used before.")


def revoke_grant(provider: Provider, grant: str, reason: str) -> bool:
    """End a grant and all of its tokens; tell whether it was alive."""
    if not provider.ledger.grants[grant].alive:
        return False
    provider.ledger.record(GrantRevoked(provider.clock(), grant, reason))
    return True


def issue_refresh_token(provider: Provider, grant: str) -> str:
    """Issue a refresh token for a grant."""
    refresh_token = "fake_refresh_" + secrets.token_urlsafe(32)
    now, lifetime = provider.clock(), provider.options.refresh_token_lifetime_seconds
    expires_at = None if lifetime is None else now + lifetime
    provider.ledger.record(RefreshTokenIssued(now, grant, fingerprint(refresh_token), expires_at))
    return refresh_token


def issue_tokens(provider: Provider, grant: str, scope: str, refresh_token: str | None) -> Issued:
    """Issue an access token for a grant, beside the refresh token."""
    access_token = "fake_access_" + secrets.token_urlsafe(32)
    now = provider.clock()
    expires_in = provider.options.access_token_lifetime_seconds
    provider.ledger.record(
        AccessTokenIssued(now, grant, fingerprint(access_token), now + expires_in)
    )
    return Issued(grant, access_token, refresh_token, expires_in, scope)
