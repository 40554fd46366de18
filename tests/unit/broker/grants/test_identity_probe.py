"""Whose account a token is for: what is read off an answer, and what is told of the others."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.unit.values import ManualClock

from ignition_broker.broker.grants.identity_probe import (
    PAUSES_SECONDS,
    Identified,
    IdentityProbe,
    IdentityQuestion,
    Unidentified,
    judge_identity,
)
from ignition_broker.json_pointer import parse_pointer
from ignition_broker.model import Account
from ignition_broker.oauth.tokens import AccessToken
from ignition_broker.outbound.answers import Answer
from ignition_broker.outbound.errors import Unreachable

TOKEN = AccessToken("the-access-token")
QUESTION = IdentityQuestion(
    "https://api.test/me", parse_pointer("/data/id"), parse_pointer("/data/name")
)


def answered(document: object = None, *, status: int = 200, body: bytes | None = None, **more):
    text = json.dumps(document).encode() if body is None else body
    return Answer(status, {}, text, **more)


def judged(*args, **more):
    return judge_identity(answered(*args, **more), QUESTION, TOKEN)


@pytest.mark.parametrize(
    ("given", "account"),
    [
        ({"id": "p1", "name": "Northwind"}, Account("p1", "Northwind")),
        ({"id": 17, "name": "Northwind"}, Account("17", "Northwind")),
        ({"id": 10**30, "name": 5}, Account(str(10**30), "5")),
        ({"id": "p1", "name": " North\nwind\u202e "}, Account("p1", "Northwind")),
        ({"id": "p1", "name": "n" * 500}, Account("p1", "n" * 200)),
    ],
)
def test_id_and_name_are_text_and_a_name_is_cleaned(given, account):
    assert judged({"data": given}) == Identified(account)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"id": "p1"}, "IGNITION_IDENTITY_NAME does not lead to a name: there is no member 'name'"),
        ({"id": "p1", "name": None}, "no text"),
        ({"id": "p1", "name": "\n"}, "no text"),
        ({"id": "p1", "name": "\u202e"}, "nothing that can be printed"),
        ({"id": "p1", "name": "Bearer the-access-token"}, "access token"),
    ],
)
def test_an_account_without_a_name_stands_with_a_warning(given, told):
    found = judged({"data": given})
    assert isinstance(found, Identified)
    assert found.account == Account("p1", None)
    assert told in str(found.warning)
    assert "the-access-token" not in str(found.warning)


def test_no_name_is_missed_where_none_is_asked_for():
    question = IdentityQuestion(QUESTION.url, QUESTION.id_pointer, None)
    found = judge_identity(answered({"data": {"id": "p1", "name": "N"}}), question, TOKEN)
    assert found == Identified(Account("p1", None))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"document": {"id": "p1"}}, "IGNITION_IDENTITY_ID does not lead to an id: there is no"),
        ({"document": {"data": {"id": None}}}, "no text and no whole number"),
        ({"document": {"data": {"id": True}}}, "no text and no whole number"),
        ({"document": {"data": {"id": 1.5}}}, "no text and no whole number"),
        ({"document": {"data": {"id": " "}}}, "no text and no whole number"),
        ({"document": {"data": {"id": ["p1"]}}}, "no text and no whole number"),
        ({"document": {"data": {"id": "i" * 201}}}, "more than 200 characters"),
        ({"document": {"data": {"id": "a\0b"}}}, "can't be printed"),
        ({"document": {"data": {"id": "x the-access-token"}}}, "leads to the access token"),
        ({"body": b"<html>"}, "is no JSON: check the address"),
        ({"body": b"[" * 100_000}, "is no JSON"),
        ({"body": b""}, "is no JSON"),
        ({"body": b"\xff"}, "is no JSON"),
        ({"body": b'{"data": {"id": ' + b"9" * 5000 + b"}}"}, "is no JSON"),
        ({"body": b"{}", "flaw": "it is larger than 64 KiB"}, "larger than 64 KiB"),
        ({"status": 401}, "scope that IGNITION_SCOPES lacks"),
        ({"status": 403}, "scope that IGNITION_SCOPES lacks"),
        ({"status": 404}, "answered 404: check the address"),
        ({"status": 302}, "answered 302: check the address"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_mend_and_not_tried_again(more, told):
    found = judged(**more)
    assert isinstance(found, Unidentified)
    assert told in found.reason
    assert not found.may_pass
    assert "the-access-token" not in found.reason


@pytest.mark.parametrize(
    "more", [{"status": 429}, {"status": 503}, {"broke_off": Unreachable("gone")}]
)
def test_what_may_pass_may_be_tried_again(more):
    found = judged(**more)
    assert isinstance(found, Unidentified)
    assert found.may_pass


class ScriptedProbe(IdentityProbe):
    def __init__(self, clock, *script) -> None:
        super().__init__(QUESTION, clock)
        self.script = list(script)

    async def _try(self, _token):
        return self.script.pop(0)


AWAY = Unidentified("away", may_pass=True)
WRONG = Unidentified("wrong")
FOUND = Identified(Account("p1", None))


class Sleeper(ManualClock):
    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.mark.parametrize(
    ("script", "found", "pauses"),
    [
        ([FOUND], FOUND, 0),
        ([WRONG, FOUND], WRONG, 0),
        ([AWAY, FOUND], FOUND, 1),
        ([AWAY, AWAY, WRONG], WRONG, 2),
        ([AWAY, AWAY, AWAY, FOUND], AWAY, 2),
    ],
)
async def test_only_what_may_pass_is_tried_again_and_not_for_ever(script, found, pauses):
    clock = Sleeper()
    assert await ScriptedProbe(clock, *script).ask(TOKEN) == found
    assert clock.slept == list(PAUSES_SECONDS[:pauses])


async def asked_of(answer: bytes | None) -> tuple[Identified | Unidentified, bytes]:
    """What a probe makes of a server that gives that answer, or none; and what it was sent."""
    requests = []

    async def serve(reader, writer):
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        if answer is None:
            await asyncio.sleep(5)
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        question = IdentityQuestion(f"http://127.0.0.1:{port}/me?a=b", ("id",), None)
        found = await IdentityProbe(question, Sleeper(), timeout_seconds=0.3).ask(TOKEN)
    return found, requests[0]


def http(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


async def test_the_token_goes_in_the_header_alone():
    found, request = await asked_of(http(b'{"id": 7}'))
    assert found == Identified(Account("7", None))
    line, _separator, headers = request.partition(b"\r\n")
    assert line == b"GET /me?a=b HTTP/1.1"
    assert b"authorization: bearer the-access-token\r\n" in headers.lower()


async def test_an_answer_is_read_within_a_bound():
    found, _request = await asked_of(http(b'{"id": "' + b"x" * 70_000 + b'"}'))
    assert isinstance(found, Unidentified)
    assert "larger than 64 KiB" in found.reason


async def test_an_answer_that_never_comes_is_waited_for_within_a_bound():
    found, _request = await asked_of(None)
    assert found == Unidentified("IGNITION_IDENTITY_URL gave no answer within 0.3 s", may_pass=True)
