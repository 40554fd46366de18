"""A sign-on from its start to its callback: what is believed, and who is an admin."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
from tests.unit.scripted_database import ScriptedDatabase
from tests.unit.values import ManualClock

from ignition_broker.broker.admins import single_sign_on
from ignition_broker.broker.admins.id_tokens import Claims, IdTokenRefused, KeyUnknown
from ignition_broker.broker.admins.single_sign_on import SIGN_ON_SECONDS, Identity, SingleSignOn
from ignition_broker.broker.errors import NotAnAdmin, SignOnFailed
from ignition_broker.storage import audit

ISSUER = "https://login.example.com"


class Provider:
    """Stands for the identity provider: keeps what it is asked."""

    def __init__(self) -> None:
        self.sends_issuer = False
        self.asked: dict[str, object] = {}
        self.codes: list[str] = []

    async def authorization_url(self, **fields: object) -> str:
        self.asked = fields
        return f"{ISSUER}/authorize"

    async def metadata(self) -> SimpleNamespace:
        return SimpleNamespace(sends_issuer=self.sends_issuer)

    async def exchange_code(self, code, _verifier) -> str:
        self.codes.append(code.reveal())
        return "id-token"

    async def keys(self) -> list[str]:
        return ["old"]

    async def newest_keys(self) -> list[str]:
        return ["new"]


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def provider():
    return Provider()


@pytest.fixture
def database():
    return ScriptedDatabase()


@pytest.fixture
def sign_on(database, provider, clock):
    return SingleSignOn(
        database,
        provider,
        clock,
        issuer=ISSUER,
        client_id="broker",
        admin_groups=("owners", "admins"),
        groups_claim="groups",
    )


@pytest.fixture
def judged(monkeypatch, clock):
    """What the ID token says, and what it was expected to say."""
    found = SimpleNamespace(
        claims=Claims(subject="u-1", name="Jo", groups=("staff", "admins"), auth_time=None),
        keys=[],
        expected=None,
        known_keys=("old", "new"),
    )

    def judge(_token, keys, expected, *, groups_claim, now):
        assert (groups_claim, now) == ("groups", clock.at)
        found.keys.append(keys)
        found.expected = expected
        if keys[0] not in found.known_keys:
            raise KeyUnknown("no such key")
        if found.claims is None:
            raise IdTokenRefused("its audience is another")
        return found.claims

    monkeypatch.setattr(single_sign_on, "judge_id_token", judge)
    return found


async def begun(sign_on, *, must_authenticate: bool = False):
    _url, pending = await sign_on.begin("/tenants", must_authenticate=must_authenticate)
    return pending


def callback(pending, **changes):
    return list({"state": pending.state, "code": "code-1", **changes}.items())


async def test_each_start_has_secrets_of_its_own_and_sends_them(sign_on, provider, clock):
    first, second = await begun(sign_on), await begun(sign_on)
    for name in ("state", "nonce", "code_verifier"):
        assert getattr(first, name) != getattr(second, name)
    assert provider.asked["state"] == second.state
    assert provider.asked["nonce"] == second.nonce
    assert (second.return_to, second.begun_at) == ("/tenants", clock.at)


async def test_a_member_of_an_admins_group_is_an_admin(sign_on, judged, provider):
    pending = await begun(sign_on)
    found = await sign_on.finish(callback(pending), pending, request_id="r")
    assert (found.actor, found.admin_groups) == ("Jo (oidc:u-1)", ("admins",))
    assert found.authenticated_seconds_ago is None
    assert judged.expected.nonce == pending.nonce
    assert judged.expected.authenticated_since is None
    assert provider.codes == ["code-1"]


async def test_who_must_authenticate_must_have_done_so_since_the_start(sign_on, judged, clock):
    pending = await begun(sign_on, must_authenticate=True)
    judged.claims = dataclasses.replace(judged.claims, auth_time=clock.at)
    clock.at += 7
    found = await sign_on.finish(callback(pending), pending, request_id=None)
    assert judged.expected.authenticated_since == pending.begun_at
    assert found.authenticated_seconds_ago == 7


async def test_keys_are_fetched_again_for_a_token_of_an_unknown_one(sign_on, judged):
    judged.known_keys = ("new",)
    pending = await begun(sign_on)
    await sign_on.finish(callback(pending), pending, request_id=None)
    assert judged.keys == [["old"], ["new"]]


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize("state", ["another", "", "ä"])
async def test_a_callback_with_another_state_spends_no_code(sign_on, provider, state):
    pending = await begun(sign_on)
    with pytest.raises(SignOnFailed):
        await sign_on.finish(callback(pending, state=state), pending, request_id=None)
    assert provider.codes == []


@pytest.mark.usefixtures("judged")
async def test_a_callback_of_a_browser_that_began_nothing_spends_no_code(sign_on, provider):
    pending = await begun(sign_on)
    with pytest.raises(SignOnFailed):
        await sign_on.finish(callback(pending), None, request_id=None)
    assert provider.codes == []


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize(
    ("seconds", "is_late"), [(SIGN_ON_SECONDS, False), (601, True), (-1, True)]
)
async def test_a_sign_on_has_ten_minutes(sign_on, clock, seconds, is_late):
    pending = await begun(sign_on)
    clock.at += seconds
    if is_late:
        with pytest.raises(SignOnFailed, match="ten minutes"):
            await sign_on.finish(callback(pending), pending, request_id=None)
    else:
        await sign_on.finish(callback(pending), pending, request_id=None)


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize(
    ("promised", "named", "is_refused"),
    [
        (False, None, False),
        (False, ISSUER, False),
        (False, "https://other.example.com", True),
        (True, None, True),
        (True, ISSUER, False),
    ],
)
async def test_an_issuer_is_compared_where_it_is_sent_or_promised(
    sign_on, provider, promised, named, is_refused
):
    provider.sends_issuer = promised
    pending = await begun(sign_on)
    query = callback(pending, **({} if named is None else {"iss": named}))
    if is_refused:
        with pytest.raises(SignOnFailed):
            await sign_on.finish(query, pending, request_id=None)
        assert provider.codes == []
    else:
        await sign_on.finish(query, pending, request_id=None)


@pytest.mark.usefixtures("judged")
async def test_an_error_of_the_provider_is_told(sign_on):
    pending = await begun(sign_on)
    query = [("state", pending.state), ("error", "access_denied"), ("error_description", "No.")]
    with pytest.raises(SignOnFailed, match=r"access_denied\): No"):
        await sign_on.finish(query, pending, request_id=None)


async def test_an_id_token_that_is_refused_signs_nobody_on(sign_on, judged):
    judged.claims = None
    pending = await begun(sign_on)
    with pytest.raises(SignOnFailed, match="its audience is another"):
        await sign_on.finish(callback(pending), pending, request_id=None)


@pytest.mark.parametrize(("groups", "hint"), [(("staff",), False), ((), True)])
async def test_who_is_in_no_admins_group_is_refused_and_audited(
    sign_on, judged, database, groups, hint
):
    judged.claims = dataclasses.replace(judged.claims, groups=groups)
    pending = await begun(sign_on)
    with pytest.raises(NotAnAdmin) as refused:
        await sign_on.finish(callback(pending), pending, request_id="r")
    assert ("names no groups at all (groups)" in refused.value.detail) is hint
    (event,) = database.parameters_of(audit.APPEND)
    assert (event["action"], event["outcome"]) == ("sign_in", "denied")
    assert (event["actor"], event["request_id"]) == ("Jo (oidc:u-1)", "r")


def test_an_actor_ends_with_the_subject_whatever_the_name_is():
    nameless = Identity(ISSUER, "u-1", None, (), b"", None)
    assert nameless.actor == "oidc:u-1"
    posing = Identity(ISSUER, "u-2", "oidc:u-1", (), b"", None)
    assert posing.actor == "oidc:u-1 (oidc:u-2)"
