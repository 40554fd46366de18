"""The simulated Ignition: refresh tokens rotate, and a second use of a spent one kills the grant
and all its tokens."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from ignition_broker.oauth.requests import OAuthRequest
from ignition_broker.outbound.answers import Answer
from ignition_broker.outbound.errors import RequestWithdrawn, Unreachable
from tests.model.world import A_MOMENT, CONNECTING, IGNITION, Operation, World

if TYPE_CHECKING:
    from tests.model.promises import Promises
    from tests.model.replicas import Replica

LIFETIME_SECONDS = 40.0
PATIENCE_SECONDS = 12.0
REVOKE_PATH = "/revoke"


@dataclass(eq=False)
class Family:
    """A grant as Ignition knows it."""

    current: str
    is_dead: bool = False


class Ignition:
    """``watch_use`` is told of every use of a refresh token, before it has its effect."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.watch_use: Callable[[Operation, str], None] = lambda _operation, _token: None
        self._serial = itertools.count(1)
        self._families: dict[str, Family] = {}
        self.is_away = False
        self.access_ends_at: dict[str, float] = {}

    def connect(self) -> tuple[str, str]:
        """A new grant's access token and refresh token."""
        return self._rotate(Family(""))

    def is_good(self, refresh_token: str) -> bool:
        family = self._families[refresh_token]
        return family.current == refresh_token and not family.is_dead

    def seconds_left(self, access_token: str) -> float:
        return self.access_ends_at[access_token] - self._world.now

    def be_reached(self) -> None:
        if self.is_away:
            raise Unreachable("refused", was_sent=False)

    def carry_out(self, operation: Operation, request: OAuthRequest) -> Answer:
        self.be_reached()
        form = parse_qs(request.body.decode())
        if urlsplit(request.url).path == REVOKE_PATH:
            self._families[form["token"][0]].is_dead = True
            return answer(200, "")
        refresh_token = form["refresh_token"][0]
        self.watch_use(operation, refresh_token)
        family = self._families[refresh_token]
        if not self.is_good(refresh_token):
            family.is_dead = True
            return answer(400, {"error": "invalid_grant"})
        access_token, successor = self._rotate(family)
        return answer(
            200,
            {
                "access_token": access_token,
                "refresh_token": successor,
                "token_type": "Bearer",
                "expires_in": LIFETIME_SECONDS,
            },
        )

    def _rotate(self, family: Family) -> tuple[str, str]:
        number = next(self._serial)
        access_token, refresh_token = f"access-{number}", f"refresh-{number}"
        family.current = refresh_token
        self._families[refresh_token] = family
        self.access_ends_at[access_token] = self._world.now + LIFETIME_SECONDS
        return access_token, refresh_token


def answer(status: int, body: object, **headers: str) -> Answer:
    return Answer(
        status, headers, body.encode() if isinstance(body, str) else json.dumps(body).encode()
    )


class Wire:
    """A replica's way to Ignition, below the real `Provider`."""

    def __init__(
        self, world: World, replica: Replica, ignition: Ignition, promises: Promises
    ) -> None:
        self._world = world
        self._replica = replica
        self._ignition = ignition
        self._promises = promises

    async def post(
        self, request: OAuthRequest, *, may_send: Callable[[], bool] | None = None
    ) -> Answer:
        connecting = self._world.begin(
            self._replica, CONNECTING, "connect", self._ignition.be_reached
        )
        await connecting.future
        if may_send is not None and not may_send():
            raise RequestWithdrawn("too late")
        form = parse_qs(request.body.decode())
        refresh_token = form.get("refresh_token", [""])[0]
        operation = self._world.begin(
            self._replica,
            IGNITION,
            f"use of {refresh_token}" if refresh_token else "revocation",
            lambda: self._ignition.carry_out(operation, request),
        )
        if refresh_token:
            operation.keep_until = connecting.issued_at + PATIENCE_SECONDS - A_MOMENT
            self._promises.refresh_token_sent(operation, refresh_token)
        try:
            response: Answer = await operation.future
        except BaseException as error:
            if refresh_token and isinstance(error, asyncio.CancelledError):
                self._promises.request_given_up(operation)
            operation.is_lost = not (isinstance(error, Unreachable) and not error.was_sent)
            raise
        if refresh_token and response.status == 200 and not operation.is_lost:
            self._promises.answer_arrived(self._replica, refresh_token, response)
        return response
