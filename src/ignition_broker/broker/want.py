"""What a caller asks of a token."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ignition_broker.model import IssuedToken


@dataclass(frozen=True, slots=True)
class Want:
    """What a caller needs of a token. A version above ``seen_version`` meets any want: nothing
    better is to be had than what Ignition has just given."""

    seen_version: int
    min_ttl_seconds: float = 0.0
    rejected_sha256: str | None = None
    is_urgent: bool = False

    def is_met_by(self, token: IssuedToken, now: datetime) -> bool:
        if token.version > self.seen_version:
            return True
        if self.is_urgent or token.sha256 == self.rejected_sha256:
            return False
        return token.lives_for(self.min_ttl_seconds, now)
