"""The JSON that `/token` answers with."""

from __future__ import annotations

import json
from datetime import UTC, timedelta
from typing import Final

from ignition_broker.bounded_map import BoundedMap
from ignition_broker.clock import Clock
from ignition_broker.grant_ids import tenant_of
from ignition_broker.model import IssuedToken
from ignition_broker.oauth.tokens import ASSUMED_LIFETIME_SECONDS

MOST_RENDERED: Final = 1000
"""So many tenants' bodies are kept."""


class TokenBodies:
    """Renders tokens as JSON; while a token is asked for often, once a second and tenant."""

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self._rendered: BoundedMap[str, tuple[IssuedToken, int, bytes]] = BoundedMap(MOST_RENDERED)

    def of(self, token: IssuedToken) -> bytes:
        """The body for ``token``, with the seconds that it still has to live."""
        left = int(token.dies_at - self._monotonic())
        rendered = self._rendered.get(token.tenant)
        if rendered is not None and rendered[0] is token and rendered[1] == left:
            return rendered[2]
        seconds, expires_at = left, token.expires_at
        if not token.has_known_end:
            # Callers ask again after a while, and so notice when the tenant was connected anew.
            seconds = ASSUMED_LIFETIME_SECONDS
            expires_at -= timedelta(seconds=left - seconds)
        fields = {
            "tenant": tenant_of(token.tenant),
            "access_token": token.access_token.reveal(),
            "token_type": token.token_type,
            "expires_at": expires_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "expires_in": max(0, seconds),
            "scope": token.scope,
        }
        body = json.dumps(fields).encode()
        self._rendered.store(token.tenant, (token, left, body))
        return body
