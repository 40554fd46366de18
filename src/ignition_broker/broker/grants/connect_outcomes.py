"""How connecting a tenant can end, and what forbids it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ignition_broker.broker.errors import BrokerError
from ignition_broker.model import Account, Actor
from ignition_broker.storage.callbacks import Judgement


@dataclass(frozen=True, slots=True)
class ConnectAttempt:
    """A sign-in whose callback has come: it ends in a grant or in a failure."""

    state_hash: bytes
    tenant: str
    actor: Actor


@dataclass(frozen=True, slots=True)
class Connected:
    """The tenant is connected.

    ``warning``, for the page: why no token can be handed out yet. ``is_renewable``: Ignition gave a
    refresh token. ``has_known_end``: if it gave none, whether it said when the access token
    expires, at ``expires_at``. ``account``: whose it is; None: not known.
    """

    tenant: str
    scope: str
    expires_at: datetime
    warning: str | None = None
    is_renewable: bool = True
    has_known_end: bool = True
    account: Account | None = None


class ConnectFailed(BrokerError):
    """A callback connected nothing. ``title`` and ``detail`` say why, for the page.

    ``tenant``: where it is known. ``error``: the OAuth error or the kind of failure, if any.
    """

    def __init__(
        self, title: str, detail: str, tenant: str | None = None, error: str | None = None
    ) -> None:
        super().__init__(detail, tenant=tenant)
        self.title = title
        self.error = error


class StillConnecting(BrokerError):
    """The code was sent and Ignition has not answered yet: the callback may still connect.

    A later visit to the same address shows what came of it.
    """

    def __init__(self, tenant: str) -> None:
        super().__init__("Ignition has not answered yet.", tenant=tenant)


@dataclass(frozen=True, slots=True)
class Objection:
    """Why an attempt may not connect, as the page says it."""

    title: str
    detail: str


def objection_to(judgement: Judgement | None) -> Objection | None:
    """Why the attempt may not connect; None if it may."""
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
