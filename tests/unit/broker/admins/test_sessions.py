"""Sessions: begun by a key or a sign-on, and ended with whatever began them."""

from __future__ import annotations

import hashlib
import json

import pytest
from cryptography.fernet import Fernet
from tests.unit.scripted_database import ScriptedDatabase

from ignition_broker.broker.admins.bootstrap import BootstrapKeyHashes
from ignition_broker.broker.admins.sessions import AdminSessions
from ignition_broker.broker.admins.single_sign_on import Identity
from ignition_broker.broker.callers.api_keys import BOOTSTRAP_ADMIN
from ignition_broker.broker.errors import SignOnFailed, Unauthenticated
from ignition_broker.cipher import Cipher
from ignition_broker.model import Caller, Scope
from ignition_broker.storage import audit, sessions

ISSUER = "https://login.example.com"
ADMIN = Caller("jo", frozenset({Scope.ADMIN}), (), key_hash=b"admin")
SERVICE = Caller("svc", frozenset({Scope.TOKEN}), ("*",), key_hash=b"service")
BOOTSTRAP = Caller(BOOTSTRAP_ADMIN, frozenset({Scope.ADMIN}), ("*",), key_hash=b"plain")
HASHES = BootstrapKeyHashes(Cipher([Fernet.generate_key().decode()]), "x" * 32)
IDENTITY = Identity(ISSUER, "u-1", "Jo", ("admins",), b"sign-on", 5.0)
BEGUN = {sessions.BEGIN: [{"actor": "somebody"}]}


class Keys:
    """Stands for `Access`: which keys are good."""

    bootstrap = BOOTSTRAP

    def __init__(self) -> None:
        self.callers = {b"ibk_jo": ADMIN, b"ibk_svc": SERVICE, b"bootstrap": BOOTSTRAP}

    async def authenticate_api_key(self, api_key: bytes, _address: str | None) -> Caller:
        return self.callers[api_key]

    async def authenticate_api_key_hash(self, hashed: bytes) -> Caller:
        for caller in self.callers.values():
            if caller.key_hash == hashed:
                return caller
        raise Unauthenticated("revoked")


@pytest.fixture
def keys():
    return Keys()


def opened(database, keys, **changes) -> AdminSessions:
    settings = {"issuer": ISSUER, "admin_groups": ("admins", "owners"), **changes}
    return AdminSessions(database, keys, HASHES, **settings)


def live(**changes) -> ScriptedDatabase:
    row = {"actor": "jo", "key_hash": None, "issuer": None, "groups": None, "is_fresh": True}
    return ScriptedDatabase({sessions.USE: [{**row, **changes}]})


def sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


async def test_a_key_of_an_admin_begins_a_session_that_is_stored_by_its_hash(keys):
    database = ScriptedDatabase(BEGUN)
    token = await opened(database, keys).sign_in_by_key(
        "ibk_jo", None, replacing=None, request_id="r"
    )
    (stored,) = database.parameters_of(sessions.BEGIN)
    assert (stored["token_hash"], stored["key_hash"]) == (sha256(token), b"admin")
    assert token not in repr(database.asked)
    (event,) = database.parameters_of(audit.APPEND)
    assert (event["action"], event["outcome"], event["actor"]) == ("sign_in", "done", "jo")
    assert json.loads(event["detail"]) == {"by": "key"}


async def test_a_key_that_is_no_admins_begins_none(keys):
    database = ScriptedDatabase(BEGUN)
    with pytest.raises(Unauthenticated) as refused:
        await opened(database, keys).sign_in_by_key(
            "ibk_svc", None, replacing=None, request_id=None
        )
    assert refused.value.key == "svc"
    assert database.asked == []


async def test_of_the_bootstrap_key_no_plain_hash_is_stored(keys):
    database = ScriptedDatabase(BEGUN)
    await opened(database, keys).sign_in_by_key("bootstrap", None, replacing=None, request_id=None)
    (stored,) = database.parameters_of(sessions.BEGIN)
    assert stored["key_hash"] == HASHES.newest != BOOTSTRAP.key_hash


async def test_a_sign_in_ends_the_session_that_the_browser_showed(keys):
    database = ScriptedDatabase(BEGUN)
    await opened(database, keys).sign_in_by_key("ibk_jo", None, replacing="old", request_id=None)
    assert [given["token_hash"] for given in database.parameters_of(sessions.END)] == [
        sha256("old")
    ]


async def test_a_sign_on_begins_one_session_and_not_a_second(keys):
    database = ScriptedDatabase(BEGUN)
    await opened(database, keys).sign_in_by_identity(IDENTITY, replacing=None, request_id=None)
    (stored,) = database.parameters_of(sessions.BEGIN)
    assert (stored["sign_on_hash"], stored["groups"]) == (b"sign-on", ["admins"])
    assert stored["authenticated_seconds_ago"] == 5.0
    used = ScriptedDatabase()
    with pytest.raises(SignOnFailed):
        await opened(used, keys).sign_in_by_identity(IDENTITY, replacing="old", request_id=None)
    assert used.parameters_of(sessions.END) == [], "the old session goes on"
    assert used.parameters_of(audit.APPEND) == []


async def test_a_session_of_a_key_lives_as_long_as_the_key(keys):
    database = live(key_hash=b"admin")
    session = await opened(database, keys).read("token")
    assert session.caller is ADMIN
    assert (session.is_fresh, session.token_hash) == (True, sha256("token"))
    del keys.callers[b"ibk_jo"]
    assert await opened(database, keys).read("token") is None


async def test_a_session_of_a_key_that_is_no_admins_any_more_has_ended(keys):
    assert await opened(live(key_hash=b"service"), keys).read("token") is None


async def test_a_session_of_the_bootstrap_key_lives_as_long_as_the_setting(keys):
    database = live(actor=BOOTSTRAP_ADMIN, key_hash=HASHES.newest)
    assert (await opened(database, keys).read("token")).caller is BOOTSTRAP
    other = BootstrapKeyHashes(Cipher([Fernet.generate_key().decode()]), "y" * 32)
    assert await AdminSessions(database, keys, other).read("token") is None


@pytest.mark.parametrize(
    ("changes", "is_live"),
    [
        ({}, True),
        ({"admin_groups": ("owners",)}, False),
        ({"admin_groups": ()}, False),
        ({"issuer": "https://other.example.com"}, False),
        ({"issuer": None}, False),
    ],
)
async def test_a_session_of_a_person_lives_as_long_as_the_settings_name_issuer_and_group(
    keys, changes, is_live
):
    database = live(actor="Jo (oidc:u-1)", issuer=ISSUER, groups=["admins"])
    session = await opened(database, keys, **changes).read("token")
    assert (session is not None) is is_live
    if session is not None:
        assert session.caller == Caller("Jo (oidc:u-1)", frozenset({Scope.ADMIN}), ("*",))


async def test_a_session_that_is_not_there_is_none(keys):
    assert await opened(ScriptedDatabase(), keys).read("token") is None


async def test_the_csrf_token_belongs_to_one_session_and_does_not_tell_its_token(keys):
    first = await opened(live(key_hash=b"admin"), keys).read("token-1")
    again = await opened(live(key_hash=b"admin"), keys).read("token-1")
    second = await opened(live(key_hash=b"admin"), keys).read("token-2")
    assert first.csrf_token == again.csrf_token != second.csrf_token
    assert first.csrf_token != first.token_hash.hex()


async def test_only_a_sign_out_that_ends_something_is_audited(keys):
    database = ScriptedDatabase({sessions.END: [{"actor": "jo"}]})
    await opened(database, keys).sign_out("token", request_id="r")
    (event,) = database.parameters_of(audit.APPEND)
    assert (event["action"], event["actor"], event["request_id"]) == ("sign_out", "jo", "r")
    nothing = ScriptedDatabase()
    await opened(nothing, keys).sign_out("token", request_id="r")
    assert nothing.parameters_of(audit.APPEND) == []
