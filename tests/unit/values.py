"""Values that the unit tests start from."""

from __future__ import annotations

from datetime import UTC, datetime

from ignition_broker.model import Grant, GrantStatus, IssuedToken
from ignition_broker.oauth.tokens import AccessToken

NOW = 1000.0
"""On the monotonic clock."""


class ManualClock:
    """Moves when it is told to, and at once when somebody sleeps."""

    def __init__(self, at: float = NOW) -> None:
        self.at = at

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


def make_token(
    tenant: str = "acme", version: int = 1, lifetime: float = 100, age: float = 0
) -> IssuedToken:
    return IssuedToken(
        tenant=tenant,
        access_token=AccessToken(f"{tenant}-{version}"),
        token_type="Bearer",
        scope="",
        expires_at=datetime(2026, 1, 1, tzinfo=UTC),
        lifetime_seconds=lifetime,
        dies_at=NOW + lifetime - age,
        version=version,
    )


def make_grant(token: IssuedToken, **changes) -> Grant:
    fields = {
        "tenant": token.tenant,
        "status": GrantStatus.CONNECTED,
        "version": token.version,
        "issued": token,
        "lease_is_held": False,
        "is_uncertain": False,
        "retry_in_seconds": 0.0,
        "failures": 0,
        "last_error": None,
        "early_renewals": 0,
        "refreshed_seconds_ago": None,
    }
    return Grant(**{**fields, **changes})
