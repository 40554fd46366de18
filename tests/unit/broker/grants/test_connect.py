"""Callbacks: what connects a tenant, and what is told where nothing was stored."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from tests.unit.broker.grants.fakes import TENANT, Stand, renewed

from ignition_broker.broker.errors import BrokerError
from ignition_broker.broker.grants.connect import Connector
from ignition_broker.broker.grants.connect_links import LinkForged, LinkSpent
from ignition_broker.broker.grants.connect_outcomes import (
    Connected,
    ConnectFailed,
    StillConnecting,
    objection_to,
)
from ignition_broker.broker.grants.held_grants import HeldGrants
from ignition_broker.broker.grants.identification import Identification
from ignition_broker.broker.grants.token_outcomes import (
    Misconfigured,
    Outcome,
    Refused,
    Rotated,
)
from ignition_broker.model import Actor, GrantStatus
from ignition_broker.oauth.tokens import RefreshToken, RefreshTokenOnly
from ignition_broker.storage import (
    authorizations,
    callbacks,
    connect_links,
    pending_revocations,
    tenants,
)
from ignition_broker.storage.callbacks import Judgement
from ignition_broker.storage.makers import Standing

CALLBACK = [("state", "state"), ("code", "code")]
STANDING = Standing(None, None, (), 3600, 600)


def judgement(**changes):
    fields = {"expires_at": None, "is_current": True, "maker_stands": True, "link_stands": True}
    fields["scope"] = None
    return SimpleNamespace(**{**fields, **changes})


class Callbacks(Stand):
    """A stand with a sign-in under way, whose callback may come."""

    def __init__(self, *script, issuer: str | None = None) -> None:
        super().__init__(*script, issuer=issuer)
        held = HeldGrants(
            self.database, self.cipher, self.policy, self.clock, self.revocations, self.repair
        )
        identification = Identification(
            self.database,
            self.cipher,
            self.clients,
            self.clock,
            self.revocations,
            held,
            standing=STANDING,
        )
        self.connector = Connector(
            self.database,
            self.cipher,
            self.clients,
            self.policy,
            self.clock,
            self.revocations,
            self.repair,
            standing=STANDING,
            identification=identification,
        )
        self.database.answers[callbacks.JUDGE] = [judgement()]
        self.begun()

    def begun(self, *, is_live: bool = True) -> None:
        verifier = self.cipher.encrypt(TENANT, "code_verifier", "verifier")
        self.database.answers[authorizations.TAKE] = [
            SimpleNamespace(tenant_id=TENANT, code_verifier=verifier, actor="root", is_live=is_live)
        ]

    async def call_back(self, query=CALLBACK, browser: str | None = "browser") -> Connected:
        return await self.connector.finish(query, browser=browser, request_id="r1")


async def test_a_callback_connects_the_tenant_under_the_scope_that_was_asked_for():
    stand = Callbacks(renewed(1))
    connected = await stand.call_back()
    assert (connected.tenant, connected.scope, connected.warning) == (TENANT, "read", None)
    assert connected.is_renewable
    assert (stand.row.status, stand.row.version) == ("connected", 1)
    assert stand.database.audit == [("connect", "done")]
    assert stand.provider.used == ["code"]
    assert stand.repair.known(TENANT).version == 1, "to be stored again if the database goes back"


async def test_tokens_are_stored_however_long_postgres_is_away():
    stand = Callbacks(renewed(1))

    async def away_after_the_answer() -> Outcome:
        stand.database.failures = 4
        return renewed(1)

    stand.provider.script = [away_after_the_answer]
    await stand.call_back()
    assert stand.row.status == "connected"
    assert stand.provider.used == ["code"]


@pytest.mark.parametrize(
    ("query", "browser"),
    [([("code", "code")], "browser"), (CALLBACK, None), ([*CALLBACK, CALLBACK[0]], "browser")],
)
async def test_a_callback_without_its_state_or_its_browser_does_nothing(query, browser):
    stand = Callbacks()
    with pytest.raises(ConnectFailed, match="browser did not begin") as caught:
        await stand.call_back(query, browser)
    assert caught.value.tenant is None
    assert stand.database.carried_out == []


async def test_a_sign_in_that_took_too_long_connects_nothing():
    stand = Callbacks()
    stand.begun(is_live=False)
    with pytest.raises(ConnectFailed) as caught:
        await stand.call_back()
    assert (caught.value.title, caught.value.tenant) == ("This sign-in took too long", TENANT)
    assert stand.database.audit == [("connect", "failed")]
    assert stand.provider.used == []


async def test_what_ignition_says_instead_of_a_code_is_told():
    stand = Callbacks()
    query = [("state", "state"), ("error", "access_denied"), ("error_description", "No, thanks.")]
    with pytest.raises(ConnectFailed) as caught:
        await stand.call_back(query)
    assert (caught.value.error, caught.value.detail) == ("access_denied", "No, thanks.")


async def test_a_callback_of_another_issuer_is_not_believed():
    stand = Callbacks(issuer="https://ignition.test")
    with pytest.raises(ConnectFailed) as caught:
        await stand.call_back([*CALLBACK, ("iss", "https://mallory.test")])
    assert caught.value.error == "issuer_mismatch"
    assert stand.provider.used == []


@pytest.mark.parametrize("ended", ["is_current", "maker_stands", "link_stands"])
async def test_nothing_is_sent_for_a_sign_in_that_may_no_longer_connect(ended):
    stand = Callbacks()
    stand.database.answers[callbacks.JUDGE] = [judgement(**{ended: False})]
    with pytest.raises(ConnectFailed):
        await stand.call_back()
    assert stand.provider.used == []


async def test_what_may_no_longer_be_stored_is_revoked_at_ignition():
    stand = Callbacks()

    async def revoked_meanwhile() -> Outcome:
        stand.database.answers[callbacks.JUDGE] = [judgement(link_stands=False)]
        return renewed(1)

    stand.provider.script = [revoked_meanwhile]
    stand.provider.can_revoke = True
    (summary,) = stand.database.answers[tenants.READ]
    stand.database.answers[tenants.READ] = [
        SimpleNamespace(**{**vars(summary), "status": GrantStatus.DISCONNECTED})
    ]
    added = []

    async def add(_connection, tenant, token, _actor):
        added.append((tenant, token.reveal()))

    stand.revocations.add = add  # type: ignore[method-assign]
    with pytest.raises(ConnectFailed) as caught:
        await stand.call_back()
    assert caught.value.title == "This link was revoked"
    assert added == [(TENANT, "refresh-1")]
    assert TENANT not in stand.database.table.rows


async def test_what_may_not_be_stored_is_not_revoked_where_that_would_end_a_grant():
    stand = Callbacks()

    async def connected_meanwhile() -> Outcome:
        stand.database.answers[callbacks.JUDGE] = [judgement(is_current=False)]
        return renewed(1)

    stand.provider.script = [connected_meanwhile]
    stand.provider.can_revoke = True
    with pytest.raises(ConnectFailed):
        await stand.call_back()
    assert pending_revocations.ADD not in stand.database.carried_out


@pytest.mark.parametrize(
    ("outcome", "title", "detail", "error"),
    [
        (Refused("spent"), "The code was refused", "spent", "Refused"),
        (
            Misconfigured("invalid_client", "who?"),
            "Ignition failed",
            "invalid_client, who?",
            "Misconfigured",
        ),
    ],
)
async def test_an_exchange_that_failed_stores_nothing_and_says_why(outcome, title, detail, error):
    stand = Callbacks(outcome)
    with pytest.raises(ConnectFailed) as caught:
        await stand.call_back()
    assert (caught.value.title, caught.value.detail, caught.value.error) == (title, detail, error)
    assert stand.database.audit == [("connect", "failed")]
    assert TENANT not in stand.database.table.rows


async def test_a_refresh_token_that_came_alone_connects_with_a_warning():
    alone = Rotated(RefreshTokenOnly(RefreshToken("refresh-1"), "no access_token"), 1000.0)
    stand = Callbacks(alone)
    connected = await stand.call_back()
    assert connected.warning == "no access_token"
    assert stand.row.refresh_token.endswith(b"refresh-1")
    assert stand.row.expires_at <= stand.clock.at


async def test_a_slow_exchange_goes_on_and_is_stored():
    may_answer = asyncio.Event()

    async def slow() -> Outcome:
        await may_answer.wait()
        return renewed(1)

    stand = Callbacks(slow)
    with pytest.raises(StillConnecting) as caught:
        await stand.call_back()
    assert caught.value.tenant == TENANT
    may_answer.set()
    await stand.connector.exchanges.wait_all(1)
    assert stand.row.status == "connected"


async def test_a_second_visit_is_answered_by_the_first_and_sends_nothing():
    stand = Callbacks()
    stand.database.answers[authorizations.TAKE] = []
    stand.database.answers[callbacks.FIND] = [
        SimpleNamespace(
            tenant_id=TENANT,
            is_current=True,
            scope="read",
            expires_at=datetime(2026, 1, 1, tzinfo=UTC),
            warning=None,
            age_seconds=1.0,
            is_renewable=True,
            has_known_end=True,
            account_id="practice_1",
            account_name=None,
            held_id=None,
            held_name=None,
        )
    ]
    assert (await stand.call_back()).scope == "read"
    assert stand.provider.used == []


async def test_a_begun_sign_in_is_stored_with_the_hash_of_its_state_alone():
    stand = Callbacks()
    maker = SimpleNamespace(parameters=dict)
    seen = []
    real = stand.database._carry_out

    async def watched(statement, given):
        seen.append((statement, given))
        return await real(statement, given)

    stand.database._carry_out = watched
    url = await stand.connector.begin(TENANT, browser="browser", actor=Actor("root"), maker=maker)
    state = url.split("state=")[1]
    (given,) = [given for statement, given in seen if statement is authorizations.BEGIN]
    assert given["tenant"] == TENANT
    assert state not in repr(given)
    assert stand.database.audit == [("connect", "begun")]


async def test_links_that_were_never_made_and_spent_ones_are_told_apart():
    stand = Callbacks()
    stand.database.answers[connect_links.READ] = []
    with pytest.raises(LinkForged):
        await stand.connector.link("token")
    stand.database.answers[connect_links.READ] = [
        SimpleNamespace(tenant_id=TENANT, created_by="root", is_live=False, return_to=None)
    ]
    with pytest.raises(LinkSpent):
        await stand.connector.link("token")
    with pytest.raises(LinkSpent):
        await stand.connector.follow_link("token", browser="browser", request_id=None)


@pytest.mark.parametrize(
    "error", [ConnectFailed("Title", "Detail", TENANT, "error"), StillConnecting(TENANT)]
)
def test_failures_pass_through_a_context_manager_as_they_are(error):
    @contextmanager
    def anything():
        yield

    with pytest.raises(BrokerError) as caught, anything():
        raise error
    assert caught.value is error
    assert error.__traceback__ is not None
    assert error.tenant == TENANT


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"is_current": False}, "This sign-in was overtaken"),
        ({"link_stands": False}, "This link was revoked"),
        ({"maker_stands": False}, "This sign-in is no longer allowed"),
    ],
)
def test_each_objection_says_what_forbids_the_connection(changes, title):
    found = objection_to(Judgement(**vars(judgement(**changes))))
    assert found is not None
    assert found.title == title
    assert objection_to(Judgement(**vars(judgement()))) is None
    assert objection_to(None) is not None
