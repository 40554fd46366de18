"""What each outcome of a token request leaves in the row, in the audit trail and for callers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.broker.grants.fakes import TENANT, Stand, renewed

from ignition_broker.broker.errors import ProviderFault, ProviderUnavailable
from ignition_broker.broker.grants.refresh_policy import OPERATOR_PAUSE_SECONDS
from ignition_broker.broker.grants.refresh_results import NothingToServe, ReadAgain, RetryNow
from ignition_broker.broker.grants.token_outcomes import (
    AnswerLost,
    Misconfigured,
    NoToken,
    NotSent,
    Refused,
    Rejected,
    Rotated,
    Throttled,
    Withdrawn,
)
from ignition_broker.model import BROKER, IssuedToken
from ignition_broker.oauth.tokens import RefreshToken, RefreshTokenOnly
from ignition_broker.storage import pending_revocations


async def leased(stand: Stand, *, age: float = 99, was_uncertain: bool = False, **columns):
    """A lease on a grant whose token is ``age`` of 100 seconds old."""
    stand.connect(age=age, **columns)
    grant, _token = await stand.refresher.read(TENANT)
    lease = await stand.refresher.leases.claim(grant)
    assert lease is not None
    return replace(lease, was_uncertain=was_uncertain)


async def record(stand: Stand, outcome, **columns):
    lease = await leased(stand, **columns)
    return await stand.outcomes.record(lease, outcome, BROKER)


async def test_a_new_token_is_stored_before_it_is_given():
    stand = Stand()
    token = await record(stand, renewed())
    assert isinstance(token, IssuedToken)
    assert (token.access_token.reveal(), token.version) == ("access-2", 2)
    row = stand.row
    assert row.access_token.endswith(b"access-2")
    assert row.refresh_token.endswith(b"refresh-2")
    assert (row.version, row.lease_owner, row.failures) == (2, None, 0)
    assert stand.database.audit == [("refresh", "renewed")]


async def test_a_new_token_without_a_refresh_token_keeps_the_old_one():
    stand = Stand()
    await record(stand, renewed(refresh_token=None))
    assert stand.row.refresh_token.endswith(b"refresh-1")


async def test_an_answer_is_stored_however_long_postgres_is_away():
    stand = Stand()
    lease = await leased(stand)
    stand.database.failures = 5
    token = await stand.outcomes.record(lease, renewed(), BROKER)
    assert token.version == stand.row.version == 2
    assert stand.database.failures == 0


async def test_a_store_that_was_committed_unheard_is_recognized():
    stand = Stand()
    lease = await leased(stand)
    real, lost = stand.database._carry_out, []

    async def commits_unheard(statement, given):
        found = await real(statement, given)
        if found and not lost:
            lost.append(statement)
            stand.database.failures = 1
            return await real(statement, given)
        return found

    stand.database._carry_out = commits_unheard
    token = await stand.outcomes.record(lease, renewed(), BROKER)
    assert token.version == stand.row.version == 2
    assert stand.database.audit == [("refresh", "renewed")], "recorded once"


async def test_a_token_that_lives_for_nothing_is_stored_and_not_given():
    stand = Stand()
    assert isinstance(await record(stand, renewed(lifetime=0)), ProviderFault)
    assert stand.row.refresh_token.endswith(b"refresh-2")
    assert stand.row.failures == 1


async def test_an_answer_that_the_row_has_overtaken_is_not_stored():
    stand = Stand()
    lease = await leased(stand)
    stand.connect(version=5)
    assert isinstance(await stand.outcomes.record(lease, renewed(), BROKER), ReadAgain)
    assert stand.row.version == 5
    assert stand.database.audit == [("refresh", "overtaken")]


async def test_what_a_disconnect_could_not_revoke_is_revoked():
    stand = Stand()
    stand.provider.can_revoke = True
    stand.database.answers[pending_revocations.ADD] = []
    lease = await leased(stand)
    stand.connect(version=5, status="disconnected")
    added = []

    async def add(_connection, tenant, token, _actor):
        added.append((tenant, token.reveal()))

    stand.revocations.add = add  # type: ignore[method-assign]
    await stand.outcomes.record(lease, renewed(), BROKER)
    assert added == [(TENANT, "refresh-2")]


async def test_a_refresh_token_that_came_alone_is_stored_and_the_access_token_stays():
    stand = Stand()
    alone = Rotated(RefreshTokenOnly(RefreshToken("refresh-2"), "no access_token"), stand.clock.at)
    result = await record(stand, alone, age=10)
    assert isinstance(result, NothingToServe)
    assert isinstance(result.failure, ProviderFault)
    assert stand.row.refresh_token.endswith(b"refresh-2")
    assert stand.row.access_token.endswith(b"access-1")
    assert stand.database.audit == [("refresh", "no_access_token")]


async def test_a_refusal_ends_the_grant_and_says_why():
    stand = Stand()
    assert isinstance(await record(stand, Refused("revoked")), ReadAgain)
    assert (stand.row.status, stand.row.last_error) == ("reauthorization_required", "revoked")


async def test_a_refusal_after_a_lost_answer_says_so():
    stand = Stand()
    await record(stand, Refused(""), was_uncertain=True)
    assert stand.row.last_error == ("invalid_grant; the answer to an earlier refresh had been lost")


async def test_a_refusal_of_a_version_that_was_replaced_ends_nothing():
    stand = Stand()
    lease = await leased(stand)
    stand.connect(version=2)
    await stand.outcomes.record(lease, Refused("spent"), BROKER)
    assert (stand.row.status, stand.row.version) == ("connected", 2)


@pytest.mark.parametrize(
    ("outcome", "kind", "event", "least_wait"),
    [
        (
            Misconfigured("invalid_client", ""),
            ProviderFault,
            "misconfigured",
            OPERATOR_PAUSE_SECONDS,
        ),
        (Rejected(404, None, "a page"), ProviderFault, "rejected", OPERATOR_PAUSE_SECONDS),
        (NotSent("refused"), ProviderUnavailable, "not_sent", 0.0),
        (Throttled(429, 70.0), ProviderUnavailable, "throttled", 70.0),
    ],
)
async def test_a_refresh_token_that_was_not_used_is_as_good_as_before(
    outcome, kind, event, least_wait
):
    stand = Stand()
    result = await record(stand, outcome)
    row = stand.row
    assert isinstance(result, kind)
    assert (row.refresh_started_at, row.lease_owner, row.failures) == (None, None, 1)
    assert row.next_refresh_at >= stand.clock.at + least_wait
    assert stand.database.audit == [("refresh", event)]


async def test_a_request_that_was_withdrawn_leaves_the_grant_as_it_was():
    stand = Stand()
    result = await record(stand, Withdrawn())
    assert isinstance(result, ProviderUnavailable)
    assert (stand.row.lease_owner, stand.row.refresh_started_at) == (None, None)
    assert (stand.row.failures, stand.database.audit) == (0, [])


async def test_a_lost_answer_leaves_the_grant_uncertain_until_its_token_has_expired():
    stand = Stand()
    result = await record(stand, AnswerLost("reset"), age=40)
    assert isinstance(result, ProviderUnavailable)
    row = stand.row
    assert row.refresh_started_at is not None
    assert row.next_refresh_at >= row.expires_at


async def test_a_lost_answer_is_tried_again_at_once_where_no_live_token_is_at_stake():
    stand = Stand()
    result = await record(stand, AnswerLost("reset"), age=101)
    assert isinstance(result, RetryNow)
    assert isinstance(result.failure, ProviderUnavailable)


@pytest.mark.parametrize(
    ("outcome", "kind", "was_uncertain"),
    [(AnswerLost("reset"), ProviderUnavailable, True), (NoToken("a page"), ProviderFault, False)],
)
async def test_a_second_lost_answer_and_a_strange_one_are_not_tried_again_at_once(
    outcome, kind, was_uncertain
):
    stand = Stand()
    assert isinstance(await record(stand, outcome, age=101, was_uncertain=was_uncertain), kind)
