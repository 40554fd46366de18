"""What can be chosen about the fake before it starts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ignition_broker.fake_ignition.dialects import DIALECTS, Dialect, Profile

REFRESH_TOKEN_LIFETIME_SECONDS = 90 * 24 * 3600


@dataclass(frozen=True)
class FakeIgnitionOptions:
    """One registered client and the server's policy towards it.

    Attributes
    ----------
    profile
        Which Ignition it stands in for; `options_for` gives its policy too.
    other_client_secrets
        Accepted beside ``client_secret``, as by a server whose clients' secrets overlap.
    issuer
        When set, put as ``iss`` on every authorization response (RFC 9207 section 2).
    reuse_grace_seconds
        For this long after it was spent, a refresh token still gets an answer; 0 is strict.
    refresh_token_lifetime_seconds
        How long a refresh token is accepted; None: until it is spent or revoked.
    ends_earlier_access_tokens
        Whether a refresh also ends the access tokens that came before.
    requests_per_hour
        Requests to the reporting API that one practice has in a window, which is an hour.
    requests_window_seconds
        The length of that window, for tests that can't wait for an hour.
    practice_size
        How many times as many rows a practice has.
    state_path
        A journal by which a second start still knows its grants; None keeps them in memory.
    """

    profile: Profile = "guide"
    client_id: str = "demo-client"
    client_secret: str = field(default="demo-secret", repr=False)
    other_client_secrets: tuple[str, ...] = field(default=(), repr=False)
    client_name: str = "Ignition Broker"
    redirect_uris: tuple[str, ...] = ("http://localhost:3000/callback",)
    default_scope: str = "read"
    require_pkce: bool = True
    access_token_lifetime_seconds: int = 3600
    refresh_token_lifetime_seconds: int | None = None
    code_lifetime_seconds: int = 60
    rotate_refresh_tokens: bool = True
    ends_earlier_access_tokens: bool = False
    reuse_grace_seconds: int = 0
    requests_per_hour: int = 1000
    requests_window_seconds: int = 3600
    practice_size: int = 1
    issuer: str | None = None
    state_path: Path | None = None

    @property
    def dialect(self) -> Dialect:
        """Where the profile has its endpoints."""
        return DIALECTS[self.profile]


def options_for(profile: Profile, **changes: Any) -> FakeIgnitionOptions:
    """Return the policy of a profile, with ``changes``."""
    policy: dict[str, Any] = {}
    if profile == "ignitionapp":
        policy = {
            "default_scope": "reporting",
            "refresh_token_lifetime_seconds": REFRESH_TOKEN_LIFETIME_SECONDS,
            "ends_earlier_access_tokens": True,
        }
    return FakeIgnitionOptions(profile=profile, **(policy | changes))
