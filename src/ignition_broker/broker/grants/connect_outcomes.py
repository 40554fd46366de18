"""How an authorization dance can end, and what forbids that it connects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ignition_broker.model import Actor
from ignition_broker.storage.callbacks import Judgement


@dataclass(frozen=True, slots=True)
class ConnectAttempt:
    """One that was taken, and is to end in a grant or in a failure."""

    state_hash: bytes
    tenant: str
    actor: Actor


@dataclass(frozen=True, slots=True)
class Connected:
    """``warning``, for the page: why no token can be handed out yet. ``is_renewable``: Ignition
    gave a refresh token; ``has_known_end``: or else said when the access token ends."""

    tenant: str
    scope: str
    expires_at: datetime
    warning: str | None = None
    is_renewable: bool = True
    has_known_end: bool = True


@dataclass(frozen=True, slots=True)
class ConnectFailed(Exception):  # reads as what happened, like the page that shows it
    """Why a callback connected nothing, for the page. ``tenant`` where the dance was known."""

    title: str
    detail: str
    tenant: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class StillConnecting(Exception):  # as above
    """The code was sent and Ignition has not answered yet: the callback may still connect. A later
    visit of it shows what came of it."""

    tenant: str


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a dance may not connect, as a page says it."""

    title: str
    detail: str


def objection_to(judgement: Judgement | None) -> Objection | None:
    """None: it may connect."""
    if judgement is None or not judgement.is_current:
        return Objection(
            "This sign-in was overtaken",
            "The tenant was connected or disconnected since it was begun.",
        )
    if not judgement.link_stands:
        return Objection("This link was revoked", "The sign-in that it began ended with it.")
    if not judgement.maker_stands:
        return Objection(
            "This sign-in is no longer allowed",
            "The key or session that it was begun with was revoked or has ended.",
        )
    return None
