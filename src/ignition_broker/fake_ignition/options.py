"""What can be chosen about the fake before it starts."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class FakeIgnitionOptions:
    """One registered client and the server's policy towards it.

    Attributes
    ----------
    issuer
        When set, put as ``iss`` on every authorization response (RFC 9207 section 2).
    reuse_grace_seconds
        For this long after it was spent, a refresh token still gets an answer; 0 is strict.
    state_path
        A journal by which a second start still knows its grants; None keeps them in memory.
    """

    client_id: str = "demo-client"
    client_secret: str = field(default="demo-secret", repr=False)
    client_name: str = "Ignition Broker"
    redirect_uris: tuple[str, ...] = ("http://localhost:3000/callback",)
    default_scope: str = "read"
    require_pkce: bool = True
    access_token_lifetime_seconds: int = 3600
    code_lifetime_seconds: int = 60
    rotate_refresh_tokens: bool = True
    reuse_grace_seconds: int = 0
    issuer: str | None = None
    state_path: Path | None = None
