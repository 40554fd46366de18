"""Signatures of webhooks, by the library of Standard Webhooks (standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from standardwebhooks import Webhook

SECRET_PREFIX: Final = "whsec_"
_SECRET_BYTES = 32
_SHORTEST_BYTES = 24
_LONGEST_BYTES = 64


def new_secret() -> str:
    """A secret with 256 random bits."""
    random = secrets.token_bytes(_SECRET_BYTES)
    return SECRET_PREFIX + base64.b64encode(random).decode("ascii")


def is_secret(text: str) -> bool:
    """Whether ``text`` is ``whsec_`` and the base64 of 24 to 64 bytes."""
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith(SECRET_PREFIX) and _SHORTEST_BYTES <= len(key) <= _LONGEST_BYTES


def signed_headers(
    secrets_in_force: Sequence[str], event: str, at: datetime, body: str
) -> dict[str, str]:
    """The three headers of a webhook.

    Args:
        secrets_in_force: each signs; two while one replaces the other.
        event: the event's name, the same at each try.
        at: the time of this try, in UTC.
        body: what is sent.
    """
    signatures = [Webhook(secret).sign(event, at, body) for secret in secrets_in_force]
    return {
        "webhook-id": event,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
