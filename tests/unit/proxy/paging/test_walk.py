"""One stream of rows out of many pages, with neither the caller nor the API there."""

from __future__ import annotations

import asyncio
import gzip
import json
from email.utils import format_datetime

import pytest
from tests.unit.proxy.test_forward import Answer, Stand
from tests.unit.values import NOW

from ignition_broker.broker.errors import NotConnected, Unauthenticated, Unavailable
from ignition_broker.outbound.errors import TimedOut, Unreachable
from ignition_broker.proxy.paging import page_answer
from ignition_broker.proxy.paging.asked import PagingRefused
from ignition_broker.proxy.paging.walk import PIECE_BYTES
from ignition_broker.server.http_protocol import HAS_EMPTY_QUERY

ALL = [(b"broker-paginate", b"all")]
JSON = (b"content-type", b"application/json; charset=utf-8")


def document(rows: str, cursor: str | None = None, **more) -> bytes:
    pagination = {"has_more": cursor is not None, "next_cursor": cursor, "limit": 2, **more}
    meta = json.dumps({"pagination": pagination})
    return f'{{"data": [{rows}], "meta": {meta}}}'.encode()


def page(rows: str, cursor: str | None = None, *headers: tuple[bytes, bytes], **more) -> Answer:
    return Answer(200, [JSON, *headers], [document(rows, cursor, **more)])


def lines(stand: Stand) -> list[bytes]:
    assert stand.header(b"content-type") == b"application/x-ndjson"
    assert [message["more_body"] for message in stand.messages[1:]][-1] is False
    assert stand.answered.endswith(b"\n")
    return stand.answered.splitlines()


def told(line: bytes) -> dict:
    assert line.startswith(b'{"broker":{')
    return json.loads(line)["broker"]


def targets(stand: Stand) -> list[bytes]:
    return [target for _method, target, _headers, _body in stand.api.sent]


async def test_the_rows_of_all_pages_come_as_one_stream_with_one_line_behind_them():
    stand = Stand(page('{"a":1},{"a":2.0}', "x/y="), page("", "z"), page('{"a": 3}'))
    call = await stand.call(query=b"limit=2&from=%2f", headers=ALL)
    assert call.status == stand.messages[0]["status"] == 200
    *rows, last = lines(stand)
    assert rows == [b'{"a":1}', b'{"a":2.0}', b'{"a": 3}']
    assert told(last) == {"complete": True, "cursor": None, "rows": 3, "pages": 3}
    assert targets(stand) == [
        b"/base/v1/me?limit=2&from=%2f",
        b"/base/v1/me?limit=2&from=%2f&cursor=x%2Fy%3D",
        b"/base/v1/me?limit=2&from=%2f&cursor=z",
    ]
    assert stand.audit_recorder.recorded == [("key", "acme", "proxy_call", "id-1")] * 3


async def test_a_stream_goes_on_from_the_callers_cursor():
    stand = Stand(page("1", "b"), page("2"))
    await stand.call(query=b"cursor=a&limit=1", headers=ALL)
    assert targets(stand) == [b"/base/v1/me?cursor=a&limit=1", b"/base/v1/me?cursor=b&limit=1"]


async def test_checkpoints_are_told_behind_each_page_but_the_last():
    stand = Stand(page("1,2", "b"), page("3", "c"), page("4"))
    await stand.call(headers=[(b"broker-paginate", b"all, checkpoints")])
    assert lines(stand) == [
        *(b"1", b"2", b'{"broker":{"complete":false,"cursor":"b","rows":2,"pages":1}}'),
        *(b"3", b'{"broker":{"complete":false,"cursor":"c","rows":3,"pages":2}}'),
        *(b"4", b'{"broker":{"complete":true,"cursor":null,"rows":4,"pages":3}}'),
    ]


async def test_an_empty_list_is_a_stream_of_no_rows():
    stand = Stand(page(""))
    await stand.call(headers=ALL)
    (last,) = lines(stand)
    assert told(last) == {"complete": True, "cursor": None, "rows": 0, "pages": 1}


async def test_a_query_that_is_only_a_question_mark_is_asked_with_the_first_page_alone():
    stand = Stand(page("1", "b"), page("2"))
    await stand.call(headers=ALL, state={HAS_EMPTY_QUERY: True})
    assert targets(stand) == [b"/base/v1/me?", b"/base/v1/me?cursor=b"]


async def test_pages_are_asked_for_plain_and_conditions_hold_for_the_first_one():
    stand = Stand(page("1", "b"), page("2"))
    sent = [(b"accept-encoding", b"br"), (b"if-none-match", b'"e"'), (b"x-a", b"1"), *ALL]
    await stand.call(headers=sent)
    first, second = (headers for _method, _target, headers, _body in stand.api.sent)
    assert first[b"accept-encoding"] == second[b"accept-encoding"] == b"identity"
    assert first[b"x-a"] == second[b"x-a"] == b"1"
    assert first[b"if-none-match"] == b'"e"'
    assert b"if-none-match" not in second
    assert not any(name.startswith(b"broker-") for name in (*first, *second))


async def test_headers_that_describe_the_first_page_do_not_describe_the_stream():
    described = [(b"content-length", b"9"), (b"etag", b'"e"'), (b"link", b"<x>; rel=next")]
    stand = Stand(page("1", None, *described, (b"cache-control", b"public"), (b"x-a", b"1")))
    await stand.call(headers=ALL)
    names = [name for name, _value in stand.messages[0]["headers"]]
    assert sorted(names) == [b"cache-control", b"content-type", b"x-a", b"x-request-id"]
    assert stand.header(b"cache-control") == b"no-store"


async def test_pages_that_come_compressed_are_read():
    coded = [
        Answer(200, [JSON, (b"content-encoding", b"gzip")], [gzip.compress(document("1", "b"))]),
        Answer(200, [JSON, (b"content-encoding", b"gzip")], [gzip.compress(document("2"))]),
    ]
    stand = Stand(*coded)
    await stand.call(headers=ALL)
    assert lines(stand)[:2] == [b"1", b"2"]


def as_it_came(status: int, content_type: bytes, *pieces: bytes, **headers: bytes) -> Answer:
    more = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return Answer(status, [(b"content-type", content_type), *more], list(pieces))


@pytest.mark.parametrize(
    "answer",
    [
        as_it_came(200, b"application/json", b'{"proposals":', b" []}\n"),
        as_it_came(200, b"application/json", b"[1,", b"2", b"]"),
        as_it_came(200, b"application/json", b""),
        as_it_came(200, b"application/json", document("1")[:-1]),
        as_it_came(200, b"text/csv", b"a,b\n", b"1,2\n"),
        as_it_came(200, b"application/json", b"\x1f\x8b", b"x", content_encoding=b"br"),
        as_it_came(200, b"application/json", b"\x1f\x8bx", content_encoding=b"gzip"),
        as_it_came(201, b"application/json", document("1")),
        as_it_came(304, b"application/json", etag=b'"e"'),
        as_it_came(302, b"text/html", b"", location=b"/base/other"),
        as_it_came(404, b"application/json", b'{"errors":', b"[]}"),
        as_it_came(500, b"text/plain", b"down"),
    ],
)
async def test_an_answer_that_is_no_page_is_passed_on_as_it_came(answer):
    plain, asked = Stand(copy_of(answer)), Stand(answer)
    await plain.call()
    call = await asked.call(headers=ALL)
    assert asked.messages[0] == plain.messages[0]
    assert asked.answered == plain.answered
    assert asked.messages[-1]["more_body"] is False
    assert call.status == answer.status
    assert len(asked.api.sent) == answer.closed == 1


def copy_of(answer: Answer) -> Answer:
    return Answer(answer.status, list(answer.headers), list(answer.pieces))


async def test_a_first_page_beyond_the_bound_is_passed_on_as_it_comes(monkeypatch):
    monkeypatch.setattr(page_answer, "LARGEST_PAGE_BYTES", 100)
    pieces = [document("1" * 40, "b"), b" " * 70, b" " * 80, b" "]
    stand = Stand(Answer(200, [JSON], list(pieces)))
    await stand.call(headers=ALL)
    assert stand.answered == b"".join(pieces)
    assert stand.header(b"content-type") == JSON[1]
    assert [message["more_body"] for message in stand.messages[1:]] == [True, True, True, False]


async def test_a_first_page_whose_call_fails_is_an_error_like_any_other():
    stand = Stand(Unreachable("down"))
    with pytest.raises(Unreachable):
        await stand.call(headers=ALL)
    assert stand.messages == []


@pytest.mark.parametrize("method", ["POST", "HEAD"])
async def test_a_call_that_cannot_be_paged_is_refused_unsent(method):
    stand = Stand()
    with pytest.raises(PagingRefused, match="Broker-Paginate"):
        await stand.call(method, headers=ALL)
    with pytest.raises(PagingRefused, match="Broker-Paginate"):
        await stand.call(headers=[(b"broker-paginate", b"some")])
    with pytest.raises(PagingRefused, match="Broker-Paginate"):
        await stand.call(headers=ALL, body=b"x")
    assert stand.api.sent == []


FAILED = [
    (Unreachable("down"), "upstream-unreachable", {"status": 502}),
    (TimedOut("late"), "upstream-timeout", {"status": 504}),
    (Answer(500), "page-refused", {"status": 502, "upstream_status": 500}),
    (
        Answer(429, [(b"retry-after", b"120")]),
        "page-refused",
        {"upstream_status": 429, "retry_after": 120},
    ),
    (Answer(304), "page-refused", {"upstream_status": 304}),
    (Answer(200, [JSON], [b"[]"]), "page-unreadable", {"status": 502}),
    (Answer(200, [JSON], [document("2")[:-1]]), "page-unreadable", {}),
    (Answer(200, [(b"content-encoding", b"br")], [b"x"]), "page-unreadable", {}),
    (RuntimeError("a secret"), "internal-error", {"status": 500}),
]


@pytest.mark.parametrize(("failure", "code", "members"), FAILED)
async def test_a_failure_behind_the_first_page_is_told_with_the_cursor_to_go_on_from(
    failure, code, members
):
    answers = [page('{"a":1}', "next"), failure]
    stand = Stand(*answers)
    call = await stand.call(headers=ALL)
    row, last = lines(stand)
    assert row == b'{"a":1}'
    end = told(last)
    error = end.pop("error")
    assert end == {"complete": False, "cursor": "next", "rows": 1, "pages": 1}
    assert error["type"] == f"urn:ignition-broker:{code}"
    assert error.items() >= {**members, "request_id": "id-1", "tenant": "acme"}.items()
    assert b"secret" not in last
    assert call.status == 200


async def test_a_later_page_beyond_the_bound_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(page_answer, "LARGEST_PAGE_BYTES", 100)
    large = Answer(200, [JSON], [document("2"), b" " * 100, b"never read"])
    stand = Stand(page("1", "b"), large)
    await stand.call(headers=ALL)
    error = told(lines(stand)[-1])["error"]
    assert error["type"] == "urn:ignition-broker:page-unreadable"
    assert "larger than" in error["detail"]
    assert large.pieces == [b"never read"]
    assert large.closed == 1


async def test_an_api_that_asks_for_patience_is_asked_again_within_the_timeout():
    stand = Stand(page("1", "b"), Answer(429, [(b"retry-after", b"7")]), page("2"))
    await stand.call(headers=ALL)
    assert told(lines(stand)[-1])["complete"] is True
    assert stand.clock.at == NOW + 7


async def test_who_wants_no_retries_gets_none():
    stand = Stand(page("1", "b"), Answer(503, [(b"retry-after", b"7")]), page("2"))
    await stand.call(headers=[*ALL, (b"broker-retry", b"0")])
    end = told(lines(stand)[-1])
    assert (end["complete"], end["error"]["retry_after"]) == (False, 7)


async def test_a_date_to_wait_for_is_told_in_seconds():
    stand = Stand()
    until = format_datetime(stand.clock.now().replace(microsecond=0), usegmt=True)
    stand.api.answers = [page("1", "b"), Answer(503, [(b"retry-after", until.encode())])]
    await stand.call(headers=[*ALL, (b"broker-retry", b"0")])
    assert told(lines(stand)[-1])["error"]["retry_after"] == 0


async def test_a_token_that_is_refused_amid_the_stream_is_renewed_once():
    refused = Answer(401, [(b"www-authenticate", b'Bearer error="invalid_token"')])
    stand = Stand(page("1", "b"), refused, page("2"))
    await stand.call(headers=ALL)
    assert told(lines(stand)[-1])["complete"] is True
    assert stand.api.tokens() == [b"Bearer acme-1", b"Bearer acme-1", b"Bearer acme-2"]


async def test_a_tenant_that_is_disconnected_amid_the_stream_ends_it():
    stand = Stand(page("1", "b"), page("2"))

    async def gone(_tenant, **_wanted):
        raise NotConnected("acme")

    async def send_and_disconnect(message):
        stand.messages.append(message)
        stand.tokens.is_held = False
        stand.tokens.issue = gone

    await stand.call(headers=ALL, send=send_and_disconnect)
    assert told(lines(stand)[-1])["error"]["type"] == "urn:ignition-broker:not-connected"


async def test_a_key_that_ends_amid_the_stream_ends_it_and_the_denial_is_recorded():
    stand = Stand(page("1", "b"), page("2"))

    async def send_and_revoke(message):
        stand.messages.append(message)
        stand.key_has_ended = True

    await stand.call(headers=ALL, send=send_and_revoke)
    assert told(lines(stand)[-1])["error"]["type"] == "urn:ignition-broker:unauthenticated"
    assert len(stand.api.sent) == 1
    (denied,) = [each for each in stand.audit_recorder.denied if isinstance(each, Unauthenticated)]
    assert denied.detail == "The key was revoked."


async def test_a_list_that_leads_back_to_itself_ends():
    stand = Stand(page("1", "b"), page("2", "b"), page("3"))
    await stand.call(headers=ALL)
    *rows, last = lines(stand)
    end = told(last)
    assert rows == [b"1", b"2"]
    assert (end["complete"], end["cursor"]) == (False, "b")
    assert "was there before" in end["error"]["detail"]


async def test_a_first_page_that_leads_to_the_callers_own_cursor_ends_the_stream():
    stand = Stand(page("1", "a b"), page("2"))
    await stand.call(query=b"cursor=a+b", headers=ALL)
    assert len(stand.api.sent) == 1
    assert told(lines(stand)[-1])["complete"] is False


@pytest.mark.parametrize("cursor", [None, ""])
async def test_a_page_that_says_more_and_not_where_ends_the_stream(cursor):
    stand = Stand(page("1", cursor, has_more=True))
    await stand.call(headers=ALL)
    row, last = lines(stand)
    assert row == b"1"
    end = told(last)
    assert (end["complete"], end["cursor"]) == (False, None)
    assert "names no next_cursor" in end["error"]["detail"]


async def test_a_cursor_behind_the_last_page_is_not_followed():
    stand = Stand(page("1", "b", has_more=False))
    await stand.call(headers=ALL)
    assert told(lines(stand)[-1])["complete"] is True
    assert len(stand.api.sent) == 1


async def test_a_broker_that_stops_ends_the_stream_behind_its_page():
    stand = Stand(page("1", "b"), page("2"))
    stand.stopping.begin()
    await stand.call(headers=ALL)
    end = told(lines(stand)[-1])
    assert end["cursor"] == "b"
    assert end["error"]["type"] == "urn:ignition-broker:unavailable"
    assert end["error"]["retry_after"] == 1


async def test_a_page_that_waits_for_admission_holds_no_slot_and_a_stop_ends_the_wait():
    stand = Stand(page("1", "b"), page("2"), tenant_concurrency=1)
    waits = asyncio.Event()

    async def without_end():
        waits.set()
        await asyncio.Event().wait()

    stand.admission = without_end
    stream = asyncio.create_task(stand.call(headers=ALL))
    await waits.wait()
    assert stand.forwarder._concurrency._tenants == {}
    stand.stopping.begin()
    await stream
    end = told(lines(stand)[-1])
    assert (end["cursor"], end["rows"]) == ("b", 1)
    assert end["error"]["type"] == "urn:ignition-broker:unavailable"
    assert len(stand.api.sent) == 1


async def test_a_page_that_is_not_admitted_is_not_asked_for():
    stand = Stand(page("1", "b"), page("2"))

    async def refused():
        raise Unavailable("Not now.", retry_after_seconds=90)

    stand.admission = refused
    await stand.call(headers=ALL)
    error = told(lines(stand)[-1])["error"]
    assert (error["detail"], error["retry_after"]) == ("Not now.", 90)
    assert len(stand.api.sent) == 1


async def test_a_long_page_goes_out_in_pieces():
    row = json.dumps("x" * 1000)
    stand = Stand(page(",".join([row] * 200)))
    await stand.call(headers=ALL)
    sizes = [len(message["body"]) for message in stand.messages[1:]]
    assert max(sizes) == PIECE_BYTES
    assert lines(stand)[:-1] == [row.encode()] * 200


class SlowCaller:
    """Takes nothing until it is told to."""

    def __init__(self, stand: Stand) -> None:
        self.is_asked, self.takes = asyncio.Event(), asyncio.Event()
        self._stand = stand

    async def send(self, message) -> None:
        if message["type"] == "http.response.body":
            self.is_asked.set()
            await self.takes.wait()
        self._stand.messages.append(message)


async def ignored(_message) -> None:
    pass


async def test_a_slow_caller_holds_no_slot_and_the_next_page_waits_for_it():
    stand = Stand(page("1", "b"), page("2"), tenant_concurrency=1)
    caller = SlowCaller(stand)
    stream = asyncio.create_task(stand.call(headers=ALL, send=caller.send))
    await caller.is_asked.wait()
    stand.api.answers.insert(0, Answer(204))
    assert (await stand.call(send=ignored)).status == 204
    assert len(stand.api.sent) == 2
    caller.takes.set()
    await stream
    assert told(lines(stand)[-1])["complete"] is True


async def test_a_tenant_has_as_many_streams_as_calls_and_the_next_one_waits_in_vain():
    stand = Stand(page("1", "b"), page("2"), tenant_concurrency=1)
    stand.forwarder._pages._concurrency._longest_wait_seconds = 0.01
    caller = SlowCaller(stand)
    stream = asyncio.create_task(stand.call(headers=ALL, send=caller.send))
    await caller.is_asked.wait()
    with pytest.raises(Unavailable):
        await stand.call(headers=ALL)
    caller.takes.set()
    await stream
    assert len(stand.api.sent) == 2


async def test_a_caller_that_leaves_ends_the_stream_and_the_call_that_runs():
    stand = Stand(page("1", "b"))
    asked, has_left = asyncio.Event(), asyncio.Event()
    send_page = stand.api.send

    async def hang_at_the_second(*request):
        if len(stand.api.sent) == 1:
            asked.set()
            await asyncio.Event().wait()
        return await send_page(*request)

    async def receive():
        await has_left.wait()
        return {"type": "http.disconnect"}

    stand.api.send = hang_at_the_second
    stream = asyncio.create_task(stand.call(headers=ALL, receive=receive))
    await asked.wait()
    has_left.set()
    await asyncio.wait_for(stream, 2)
    assert stand.messages[-1]["more_body"] is True
    assert stand.forwarder._concurrency._tenants == {}
    assert stand.forwarder._pages._concurrency._tenants == {}
