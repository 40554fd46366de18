"""Bugs put into the refresh on purpose, each of which removes one safeguard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import TextClause

from ignition_broker import deadlines
from ignition_broker.broker.change_feed import ChangeFeed, ChangeFeedCache
from ignition_broker.broker.errors import BrokerError, ProviderUnavailable, Unavailable
from ignition_broker.broker.grants import refresh
from ignition_broker.broker.grants.answer_store import AnswerStore
from ignition_broker.broker.grants.issue import Issuer
from ignition_broker.broker.grants.leases import LeaseKeeper, Leases
from ignition_broker.broker.grants.outcomes import OutcomeRecorder
from ignition_broker.broker.grants.provider import Provider
from ignition_broker.broker.grants.sealing import issued_token
from ignition_broker.broker.grants.single_flight import Flight, SingleFlight
from ignition_broker.broker.grants.storage_retries import PersistentWriter
from ignition_broker.broker.grants.token_cache import TokenCache
from ignition_broker.broker.grants.token_outcomes import AnswerLost, Renewed
from ignition_broker.broker.grants.token_requests import TokenRequests
from ignition_broker.broker.grants.token_requirements import WantedToken
from ignition_broker.model import Actor, IssuedToken, Lease
from ignition_broker.oauth import answers
from ignition_broker.storage import leases, new_tokens, refresh_failures, restoring
from ignition_broker.storage.errors import StorageError
from ignition_broker.storage.sealed_tokens import Stored
from tests.model.promises import (
    ALIVE,
    GONE,
    KEPT,
    LIVES,
    NOT_UNDONE,
    SPARED,
    STORED_FIRST,
    USED_ONCE,
)
from tests.model.rows import Found, Given, GrantRow, GrantRows
from tests.model.statements import STATEMENTS

Mutation = Callable[[pytest.MonkeyPatch], None]


def store_without_version_check(monkeypatch: pytest.MonkeyPatch) -> None:
    _change(monkeypatch, new_tokens.STORE_REFRESHED, lambda _t, row, _g: {"version": row.version})


def refusal_without_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    _change(
        monkeypatch,
        refresh_failures.RECORD_REFUSAL,
        lambda _t, row, _g: {"version": row.version, "owner": row.lease_owner},
    )


def claim_of_a_held_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    def unleased(_table: GrantRows, row: GrantRow, _given: Given) -> Given:
        row.lease_until = None
        return {}

    _change(monkeypatch, leases.CLAIM, unleased)


def store_only_with_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose lease somebody took over is thrown away."""

    def stale(_table: GrantRows, row: GrantRow, _given: Given) -> Given:
        return {} if row.lease_owner is not None else {"version": -1}

    _change(monkeypatch, new_tokens.STORE_REFRESHED, stale)
    _change(monkeypatch, restoring.RESTORE, stale)


def lost_answer_taken_for_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(
        self: OutcomeRecorder, lease: Lease, outcome: AnswerLost, actor: Actor
    ) -> BrokerError:
        wait = await self._not_used(lease, "not_sent", outcome.reason, None, actor)
        return ProviderUnavailable(outcome.reason, retry_after_seconds=wait, tenant=lease.tenant)

    monkeypatch.setattr(OutcomeRecorder, "_lost", lost)


def no_head_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart of Postgres, an abandoned lease is claimed at once."""
    monkeypatch.setattr(leases, "STORE_HEAD_START_SECONDS", 0.0)


def a_lease_is_not_looked_at_before_the_request_goes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeaseKeeper, "may_send", lambda _self: True)


def leases_are_not_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: LeaseKeeper) -> None:
        pass

    monkeypatch.setattr(LeaseKeeper, "run", never)


def an_own_request_is_forgotten_with_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TokenRequests, "is_out", lambda *_given: False)


def late_answers_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request ends when its callers go."""
    begin = Provider.__init__

    def impatient(self: Provider, *given: Any, timeout_seconds: float, **_more: Any) -> None:
        begin(self, *given, timeout_seconds=timeout_seconds, patience_seconds=timeout_seconds)

    monkeypatch.setattr(Provider, "__init__", impatient)


def deadlines_come_before_what_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "TURNS", 0)
    monkeypatch.setattr(deadlines, "LATE_SECONDS", float("inf"))


def a_server_error_is_taken_for_not_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    every = frozenset({429, *range(500, 600)})
    monkeypatch.setattr(answers, "NOT_CARRIED_OUT", every)


def one_name_for_all_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leases, "_new_owner", lambda self: self._replica)


def claim_that_hides_a_lost_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    real = STATEMENTS[leases.CLAIM]

    def claim(table: GrantRows, given: Given, now: float) -> Found:
        found = real(table, given, now)
        for row in found:
            row.was_uncertain = False
        return found

    monkeypatch.setitem(STATEMENTS, leases.CLAIM, claim)


def serve_before_store(monkeypatch: pytest.MonkeyPatch) -> None:
    store = AnswerStore.store_renewed

    async def served(
        self: AnswerStore, lease: Lease, renewed: Renewed, actor: Actor
    ) -> IssuedToken:
        self._storing = asyncio.create_task(store(self, lease, renewed, actor))  # type: ignore[attr-defined]
        now = self._clock.now()
        stored = Stored(lease.version + 1, now, now, now)
        return issued_token(lease.tenant, renewed, lease.scope, stored)

    monkeypatch.setattr(AnswerStore, "store_renewed", served)


def store_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def once(self: PersistentWriter, work: Callable[[Any], Any]) -> Any:
        try:
            return await self._database.single(work)
        except StorageError as error:
            raise Unavailable("The database is away.") from error

    monkeypatch.setattr(PersistentWriter, "write", once)


def no_pause_after_a_lost_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "pause_before_asking", lambda *_given: None)


def memory_of_what_was_read_before_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    put = ChangeFeedCache.put

    def unmarked(self: ChangeFeedCache[Any, Any], key: Any, value: Any, _mark: object) -> None:
        put(self, key, value, self.mark())

    monkeypatch.setattr(ChangeFeedCache, "put", unmarked)


def late_answers_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read is served, whatever was heard of since."""
    begin = TokenCache.__init__

    def deaf(self: TokenCache, change_feed: ChangeFeed) -> None:
        begin(self, change_feed)
        self.was_dropped = lambda _tenant, _mark: False

    monkeypatch.setattr(TokenCache, "__init__", deaf)


def a_refusal_binds_whoever_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    start = SingleFlight.start

    def for_nobody_in_particular(
        self: SingleFlight[Any], tenant: str, work: Any, *, must_renew: bool = True, **_more: object
    ) -> Flight[Any]:
        return start(self, tenant, work, must_renew=must_renew)

    monkeypatch.setattr(SingleFlight, "start", for_nobody_in_particular)


def memory_is_thought_newer_than_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def renew_refused(self: Issuer, tenant: str, *, rejected_sha256: str) -> IssuedToken:
        token = self._cache.get(tenant) or (await self._refresher.read(tenant))[1]
        return await self._refresher.renew(
            tenant, WantedToken(token.version, rejected_sha256=rejected_sha256)
        )

    is_met_by = WantedToken.is_met_by

    def is_met_by_any_newer(self: WantedToken, token: IssuedToken, now: float) -> bool:
        is_newer = token.version > self.seen_version
        return is_met_by(replace(self, rejected_sha256=None) if is_newer else self, token, now)

    monkeypatch.setattr(Issuer, "renew_refused", renew_refused)
    monkeypatch.setattr(WantedToken, "is_met_by", is_met_by_any_newer)


def any_live_token_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        WantedToken, "is_met_by", lambda _self, token, now: token.seconds_left(now) > 0
    )


def memory_is_believed_without_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChangeFeed, "is_trusted", True)


def _change(
    monkeypatch: pytest.MonkeyPatch,
    statement: TextClause,
    changed: Callable[[GrantRows, GrantRow, Given], Given],
) -> None:
    """The statement is given something else, or finds something else, than it should."""
    real = STATEMENTS[statement]

    def mutated(table: GrantRows, given: Given, now: float) -> Any:
        row = table.rows[given["tenant"]]
        return real(table, {**given, **changed(table, row, given)}, now)

    mutated.__name__ = real.__name__
    monkeypatch.setitem(STATEMENTS, statement, mutated)


CAUGHT_BY: dict[Mutation, set[str]] = {
    store_without_version_check: {NOT_UNDONE},
    a_lease_is_not_looked_at_before_the_request_goes_out: {USED_ONCE},
    leases_are_not_extended: {USED_ONCE},
    late_answers_are_dropped: {KEPT},
    deadlines_come_before_what_has_arrived: {KEPT},
    a_server_error_is_taken_for_not_carried_out: {SPARED},
    serve_before_store: {STORED_FIRST},
    claim_of_a_held_lease: {USED_ONCE},
    no_pause_after_a_lost_answer: {SPARED},
    store_tried_once: {KEPT, USED_ONCE},
    refusal_without_checks: {ALIVE},
    store_only_with_the_lease: {KEPT},
    lost_answer_taken_for_not_sent: {SPARED},
    no_head_start: {USED_ONCE},
    memory_of_what_was_read_before_a_change: {GONE},
    memory_is_believed_without_proof: {GONE, LIVES},
    any_live_token_will_do: {LIVES},
}
"""The promises that each of them breaks; one that takes an unlikely meeting of several faults is
left to `test_found`."""
