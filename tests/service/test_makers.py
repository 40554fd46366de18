"""Links and sign-ins end with what the settings no longer vouch for; and what is stored is stored
once. Straight at the broker, since a test can't change the settings of a running process."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from cryptography.fernet import Fernet
from tests.conftest import decide, sql

from ignition_broker.broker.admins.makers import ANY_SETTINGS, Makers
from ignition_broker.broker.callers.api_keys import BOOTSTRAP_ADMIN
from ignition_broker.broker.grants.connect_links import create_link, link_hash, list_links
from ignition_broker.cipher import Cipher
from ignition_broker.clock import SystemClock
from ignition_broker.model import Actor, Caller, Scope
from ignition_broker.settings import Settings
from ignition_broker.storage import connect_links
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageUnavailable
from ignition_broker.storage.makers import OPERATOR
from ignition_broker.telemetry import Metrics
from ignition_broker.wiring import assemble

FERNET_KEY = Fernet.generate_key().decode()
ADMIN_KEY = secrets.token_urlsafe(32)
BOOTSTRAP = Caller(BOOTSTRAP_ADMIN, frozenset({Scope.ADMIN}), ("*",))
WORKLOAD = Caller("jwt:kube/operator", frozenset({Scope.ADMIN}), ("*",), rule_hash=b"r" * 32)
PERSON = Caller("jo (oidc:u-1)", frozenset({Scope.ADMIN}), ("*",))


def makers(*keys: str, **more) -> Makers:
    settings = {"admin_key": ADMIN_KEY, "admin_rules": [WORKLOAD.rule_hash]}
    settings |= {"issuer": "https://idp.example", "admin_groups": ("owners", "admins")}
    return Makers(Cipher(keys or [FERNET_KEY]), **(settings | more))


@pytest.fixture
async def database(database_url):
    opened = Database(database_url, pool_size=2)
    yield opened
    await opened.aclose()


async def works(database: Database, token: str, settings: Makers) -> bool:
    hashed = link_hash(token)
    link = await database.once(lambda c: connect_links.read(c, hashed, settings.standing))
    assert link is not None
    listed = await list_links(database, link.tenant, settings.standing)
    assert bool(listed) is link.is_live, "the list and the page agree"
    assert await list_links(database, link.tenant, ANY_SETTINGS), "the operator sees it"
    return link.is_live


async def test_a_link_of_the_bootstrap_admin_ends_with_that_key(database):
    link = await create_link(database, "boot", Actor(BOOTSTRAP_ADMIN), makers().of(BOOTSTRAP))
    assert await works(database, link.token, makers())
    newer = Fernet.generate_key().decode()
    assert await works(database, link.token, makers(newer, FERNET_KEY)), "the keys are rotated"
    assert not await works(database, link.token, makers(admin_key=secrets.token_urlsafe(32)))
    assert not await works(database, link.token, makers(admin_key=None))


async def test_a_link_of_a_workload_ends_with_the_rule_that_made_it_an_admin(database):
    link = await create_link(database, "rule", Actor(WORKLOAD.name), makers().of(WORKLOAD))
    assert await works(database, link.token, makers())
    assert not await works(database, link.token, makers(admin_rules=[b"s" * 32]))


async def test_a_link_of_a_person_ends_with_the_session_the_issuer_and_the_groups(
    database, postgres, database_url
):
    begun = "INSERT INTO sessions (token_hash, actor, issuer, groups) VALUES "
    person = r"('\x6a', 'jo (oidc:u-1)', 'https://idp.example', '{admins}')"
    sql(postgres, database_url, begun + person)
    link = await create_link(database, "person", Actor(PERSON.name), makers().of(PERSON, b"j"))
    assert await works(database, link.token, makers())
    assert not await works(database, link.token, makers(issuer="https://other.example"))
    assert not await works(database, link.token, makers(issuer=None))
    assert not await works(database, link.token, makers(admin_groups=("owners",)))
    sql(postgres, database_url, "UPDATE sessions SET ended_at = now()")
    hashed = link_hash(link.token)
    found = await database.once(lambda c: connect_links.read(c, hashed, makers().standing))
    assert not found.is_live


async def test_the_bootstrap_key_cannot_be_guessed_from_what_is_stored(
    database, postgres, database_url
):
    await create_link(database, "dumped", Actor(BOOTSTRAP_ADMIN), makers().of(BOOTSTRAP))
    rows = sql(postgres, database_url, "SELECT * FROM connect_links WHERE tenant_id = 'dumped'")
    assert hashlib.sha256(ADMIN_KEY.encode()).hexdigest() not in rows
    assert ADMIN_KEY not in rows


@pytest.fixture
async def parts(idle_broker):
    fields = {name.lower(): value for name, value in idle_broker.settings.items()}
    assembled = assemble(Settings(_env_file=None, **fields), SystemClock(), Metrics())
    yield assembled
    await assembled.endpoints.aclose()
    await assembled.database.aclose()


async def test_a_connect_whose_commit_was_not_heard_of_is_one_connect(
    parts, postgres, database_url, monkeypatch
):
    """The second try finds what the first stored, and is not 'overtaken' by it."""
    mark = secrets.token_urlsafe(32)
    url = await parts.connector.begin("unheard", browser=mark, actor=Actor("x"), maker=OPERATOR)
    with httpx.Client() as browser:
        query = parse_qsl(urlsplit(decide(browser, url)).query)
    begin, lost = parts.database.begin, []

    @contextlib.asynccontextmanager
    async def losing():
        async with begin() as connection:
            yield connection
        is_stored = sql(postgres, database_url, "SELECT count(*) FROM grants") == "1"
        if is_stored and not lost:
            lost.append(True)
            raise StorageUnavailable("the commit's answer was lost")

    monkeypatch.setattr(parts.database, "begin", losing)
    connected = await parts.connector.finish(query, browser=mark, request_id=None)
    assert lost
    assert connected.tenant == "unheard"
    assert sql(postgres, database_url, "SELECT status, version FROM grants") == "connected|1"
    done = "SELECT count(*) FROM audit_events WHERE action = 'connect' AND outcome = 'done'"
    assert sql(postgres, database_url, done) == "1"
