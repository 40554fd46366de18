"""The promises, watched while an example runs.

A second use of a refresh token has an excuse where an earlier one had none of these: an answer
that came, a process that lived, and one that could do its work before the lease ran out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import TextClause

from ignition_broker.broker.errors import BrokerError
from ignition_broker.broker.grants.leases import SEND_MARGIN_SECONDS
from ignition_broker.broker.grants.token_requirements import UNCERTAIN_RESERVE_PART
from ignition_broker.cipher import Cipher
from ignition_broker.model import GrantStatus, IssuedToken
from ignition_broker.outbound.answers import Answer as TokenAnswer
from ignition_broker.storage import new_tokens
from ignition_broker.storage.database import STATEMENT_TIMEOUT_SECONDS
from tests.model.ignition import LIFETIME_SECONDS, Ignition
from tests.model.postgres import BEGAN_AT, Server
from tests.model.replicas import TENANT, Replica
from tests.model.rows import GrantRow
from tests.model.world import Operation, World

USED_ONCE = "a refresh token is used once"
SPARED = "a live token is not put at risk after a lost answer"
STORED_FIRST = "a token is stored before it is served"
KEPT = "what Ignition answers is stored"
NOT_UNDONE = "what is stored is not undone by what is older"
ALIVE = "a grant dies only if Ignition says so"
GONE = "a disconnected grant serves nobody after a second"
LIVES = "a token lives as long as asked"
NOT_REFUSED = "nobody is refused what is there to be had"
NEVER_HANGS = "every caller gets a token or a typed error in time"
MENDS = "when the faults are over a living grant serves everybody"

HINDRANCE_SECONDS = SEND_MARGIN_SECONDS - 1.0
"""Whoever is kept from its work for less can extend its lease in time."""
GRACE_SECONDS = 1.0
NOTICED_SECONDS = 1.0


@dataclass(eq=False)
class Call:
    """``rejected``: the token that the caller saw rejected. ``insists``: no live token will do
    that was there before."""

    replica: Replica
    min_ttl_seconds: float
    at_worst_seconds: float
    began_at: float
    version: int
    rejected: str | None = None
    insists: bool = False
    token: IssuedToken | None = None
    error: BrokerError | None = None

    def __str__(self) -> str:
        came = self.error or (self.token and self.token.access_token.reveal())
        return f"{self.replica.owner}'s caller for {self.min_ttl_seconds} s: {came}"


@dataclass(eq=False)
class Answer:
    """That a living process got from Ignition."""

    replica: Replica
    version: int
    refresh_token: str


class Promises:
    def __init__(self, world: World, server: Server, ignition: Ignition, cipher: Cipher) -> None:
        self._world = world
        self._server = server
        self._ignition = ignition
        self._cipher = cipher
        self._versions: dict[str, int] = {}
        self._ends_late: dict[str, float] = {}
        self._stored_at = 0.0
        self._committed_at: dict[str, float] = {}
        self._gone_at = 0.0
        self._gone_version = 0
        self._uses: dict[str, list[Operation]] = {}
        self._sent: dict[str, list[Operation]] = {}
        self._answers: list[Answer] = []
        self.somebody_insists = False
        self.last_served: str | None = None
        server.watch = self.row_changed
        ignition.watch_use = self.refresh_token_used

    @property
    def row(self) -> GrantRow:
        return self._server.table.rows[TENANT]

    def row_changed(self, statement: TextClause, before: GrantRow | None, row: GrantRow) -> None:
        if row.status == GrantStatus.DISCONNECTED:
            self._gone_at, self._gone_version = self._world.now, row.version
            return
        refresh_token = self.refresh_token(row)
        if row.status == GrantStatus.REAUTHORIZATION_REQUIRED:
            if self._ignition.is_good(refresh_token):
                self._world.breaks(ALIVE, f"{refresh_token} is good, and its grant was given up")
            return
        if before is not None and row.version == before.version:
            return
        was_disconnected = before is not None and before.status == GrantStatus.DISCONNECTED
        if was_disconnected and statement is not new_tokens.STORE_CONNECTED:
            self._world.breaks(NOT_UNDONE, f"{refresh_token} was stored after the disconnect")
        if refresh_token in self._versions:
            self._world.breaks(NOT_UNDONE, f"{refresh_token} was stored twice")
        access_token = self._value(row, "access_token")
        self._versions[refresh_token] = self._versions[access_token] = row.version
        # A delayed store writes an expiry that is late by the delay: the one known
        # gap, at most a statement's timeout.
        late = self._seconds_left(row) - self._ignition.seconds_left(access_token)
        self._ends_late[access_token] = max(0.0, late)
        self._stored_at = self._committed_at[access_token] = self._world.now

    def refresh_token_sent(self, operation: Operation, refresh_token: str) -> None:
        sent = self._sent.setdefault(refresh_token, [])
        for use in sent:
            if use.replica is operation.replica and not use.future.done():
                self._world.breaks(USED_ONCE, f"{refresh_token} goes out while {use} is out")
        uses = self._uses.get(refresh_token, [])
        lost = [use for use in sent if use.is_lost or (use in uses and not use.replica.is_alive)]
        sent.append(operation)
        row = self.row
        if not lost or self.somebody_insists or self._versions[refresh_token] != row.version:
            return
        if row.status != GrantStatus.CONNECTED:
            return
        # The replica counts the token's life from before it read the row.
        tolerance = LIFETIME_SECONDS * UNCERTAIN_RESERVE_PART + GRACE_SECONDS
        if operation.replica.is_in_trouble(since=self._world.now - GRACE_SECONDS):
            tolerance += STATEMENT_TIMEOUT_SECONDS
        if self._seconds_left(row) > tolerance:
            self._world.breaks(SPARED, f"{refresh_token} goes out again after {lost[-1]} was lost")

    def refresh_token_used(self, operation: Operation, refresh_token: str) -> None:
        uses = self._uses.setdefault(refresh_token, [])
        if uses and not self._has_excuse(operation):
            blamed = [use for use in uses if not self._has_excuse(use)]
            if blamed:
                self._world.breaks(USED_ONCE, f"{operation} comes after {blamed[-1]}")
        uses.append(operation)

    def _has_excuse(self, use: Operation) -> bool:
        replica = use.replica
        return (
            use.is_lost
            or not replica.is_alive
            or replica.hindered_seconds(since=use.issued_at) >= HINDRANCE_SECONDS
        )

    def request_given_up(self, operation: Operation) -> None:
        """By a living process, which ends no request before its time, and takes what has come."""
        if self._world.is_over or not operation.replica.is_alive:
            return
        if operation.has_arrived:
            self._world.breaks(KEPT, f"{operation} was given up with its answer in the socket")
        if self._world.now < operation.keep_until:
            self._world.breaks(KEPT, f"{operation} was given up before its time")

    def answer_arrived(self, replica: Replica, refresh_token: str, response: TokenAnswer) -> None:
        version = self._versions[refresh_token]
        self._answers.append(Answer(replica, version, json.loads(response.body)["refresh_token"]))

    def served(self, call: Call) -> None:
        token = call.token
        assert token is not None
        self.last_served = access_token = token.access_token.reveal()
        if self._versions.get(access_token) != token.version:
            self._world.breaks(
                STORED_FIRST, f"{access_token} was served as version {token.version}"
            )
        is_gone = token.version < self._gone_version
        is_gone &= call.began_at > self._gone_at + NOTICED_SECONDS
        # A replica that can't ask Postgres serves what was valid when it last could.
        if is_gone and not call.replica.is_in_trouble(since=call.began_at):
            self._world.breaks(GONE, f"{access_token} was served")
        if access_token == call.rejected:
            self._world.breaks(LIVES, f"{access_token} was served to whoever saw it rejected")
        left = self._ignition.seconds_left(access_token) + self._ends_late[access_token]
        # For a token that is new to the caller's replica, half its life is enough.
        is_new = self._committed_at[access_token] > call.began_at - GRACE_SECONDS
        is_new |= call.replica.is_in_trouble(since=call.began_at)
        floor = min(call.at_worst_seconds, LIFETIME_SECONDS / 2 if is_new else LIFETIME_SECONDS)
        if left <= 0 or left < floor:
            self._world.breaks(LIVES, f"{access_token} lives for {left:.1f} s, not {floor}")
        is_current = token.version == self.row.version
        is_short = left < call.min_ttl_seconds and not is_current
        if is_short and self._could_be_had(call, call.min_ttl_seconds):
            self._world.breaks(LIVES, f"{access_token} was served, a longer one was stored")

    def refused(self, call: Call) -> None:
        if self._could_be_had(call, call.at_worst_seconds):
            self._world.breaks(NOT_REFUSED, f"{call}")

    def _could_be_had(self, call: Call, seconds: float) -> bool:
        row, since = self.row, self._world.now - GRACE_SECONDS
        return (
            row.status == GrantStatus.CONNECTED
            and self._seconds_left(row) > seconds + GRACE_SECONDS
            and self._stored_at < since
            and not (call.insists and (call.rejected is None or row.version <= call.version))
            and not call.replica.is_in_trouble(since=since)
        )

    def kept_at_the_end(self) -> None:
        for answer in self._answers:
            is_kept = answer.refresh_token in self._versions
            if answer.replica.is_alive and not is_kept and self.row.version <= answer.version:
                self._world.breaks(KEPT, f"{answer.refresh_token} was not")

    def has_living_grant(self) -> bool:
        row = self.row
        if row.status == GrantStatus.DISCONNECTED:
            return False
        return self._ignition.is_good(self.refresh_token(row))

    def seconds_left(self) -> float:
        """Of the token that is stored."""
        is_there = self.row.status == GrantStatus.CONNECTED
        return self._seconds_left(self.row) if is_there else 0.0

    def refresh_token(self, row: GrantRow) -> str:
        return self._value(row, "refresh_token")

    def access_token(self, row: GrantRow) -> str:
        return self._value(row, "access_token")

    def _value(self, row: GrantRow, column: str) -> str:
        return self._cipher.decrypt(row.tenant_id, column, getattr(row, column))

    def _seconds_left(self, row: GrantRow) -> float:
        assert row.expires_at is not None
        return row.expires_at - (BEGAN_AT + self._world.now)
