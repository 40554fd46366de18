"""Asks for one page after the other, and streams their rows to the caller.

A page is asked for once the rows of the one before are taken, so that one page at most is in
memory. Each page is a proxied call like any other: token, refresh after a 401, the tenant's slots,
the audit trail. Its slot is free again before its rows go out, however slowly they are taken.

Over 250 lines: the walk's state is shared by each of its steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, Protocol

import structlog
from starlette.types import Message, Receive, Scope, Send

from ignition_broker.broker.errors import Unavailable
from ignition_broker.clock import Clock
from ignition_broker.outbound.exchange import Headers
from ignition_broker.proxy.busy_retries import MOST_RETRIES
from ignition_broker.proxy.caller_disconnects import CallerDisconnects
from ignition_broker.proxy.caller_pace import ANSWER_GRACE_SECONDS, CallerPace
from ignition_broker.proxy.forwarded_call import ForwardedCall
from ignition_broker.proxy.paging.asked import HEADER, PagesAsked
from ignition_broker.proxy.paging.cursors import CursorCycle, cursor_in, with_cursor
from ignition_broker.proxy.paging.errors import PageUnreadable
from ignition_broker.proxy.paging.page_answer import FirstAnswer, LaterAnswer
from ignition_broker.proxy.paging.page_reader import Page, PageReader
from ignition_broker.proxy.paging.progress import Progress
from ignition_broker.proxy.request_body import RequestBody
from ignition_broker.proxy.tenant_concurrency import TenantConcurrency
from ignition_broker.server.stop_state import Stopping

log = structlog.get_logger(__name__)

PIECE_BYTES = 1 << 16
# They describe the first page alone.
_OF_ONE_PAGE = frozenset(
    {b"accept-ranges", b"age", b"cache-control", b"etag", b"expires", b"last-modified", b"link"}
    | {b"digest", b"repr-digest"}
)
# Of a later page they would be asked with what holds for the first one.
_CONDITIONS = frozenset(
    {b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since"}
    | {b"range"}
)


class Forward(Protocol):
    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, call: ForwardedCall
    ) -> None:
        """One proxied call (`Forwarder.forward`)."""


class PageStreams:
    """All streams of pages of one process.

    ``tenant_streams``: how many of one tenant run at once; further ones wait as calls do.
    Once ``stopping`` has begun, a stream ends behind its page.
    ``problem_of``: the members of the problem that an error amid a stream is. ``admit``: waits, if
    need be, until a tenant's next page may be asked for; None: it always may.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        tenant_streams: int,
        stopping: Stopping,
        problem_of: Callable[[Exception, ForwardedCall], Mapping[str, object]],
        admit: Callable[[ForwardedCall], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._clock = clock
        self._concurrency = TenantConcurrency(tenant_streams)
        self._disconnects = CallerDisconnects()
        self._stop = asyncio.Event()
        stopping.when_begun(self._stop.set)
        self._problem_of = problem_of
        self._admit = admit

    async def stream(
        self,
        forward: Forward,
        scope: Scope,
        receive: Receive,
        send: Send,
        call: ForwardedCall,
        asked: PagesAsked,
    ) -> None:
        """Answers with the rows of all pages; with the API's own answer where that is no page.

        Raises what ``forward`` raises for the first page; a failure behind it is told in the
        stream's last line.
        """
        pace = CallerPace(self._clock.monotonic, ANSWER_GRACE_SECONDS)
        body = RequestBody(receive, 0, 0, pace)
        body.has_none()

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                await send(message)
                return
            body.is_answered = not message["more_body"]
            pace.starts_anew()
            await send(message)
            pace.moved(len(message["body"]))

        with self._disconnects.watch(body) as watched:
            watched.watch_at_once()
            await self._concurrency.acquire(call.tenant, call.caller)
            try:
                await self._answer(_PageCalls(forward, scope, call), send_on, call, asked)
            finally:
                self._concurrency.release(call.tenant, call.caller)

    async def _answer(
        self, calls: _PageCalls, send: Send, call: ForwardedCall, asked: PagesAsked
    ) -> None:
        answer = FirstAnswer(send)
        await calls.first(answer.take)
        if answer.start is None:
            return
        plain = answer.body()
        page = None if plain is None else await self._read_if_known(plain)
        del plain
        if page is None:
            await answer.pass_on()
            return
        headers = _stream_headers(answer.start["headers"])
        del answer
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        progress = Progress()
        cycle = CursorCycle(cursor_in(calls.query))
        error = None
        while error is None:
            await self._send_rows(page.lines, send)
            progress.take(page)
            if progress.is_complete:
                break
            if asked.with_checkpoints:
                await self._send_rows(progress.line(), send)
            del page
            try:
                page = await self._next_page(calls, call, progress.cursor, cycle)
            except Exception as failure:  # every failure is told
                error = self._problem_of(failure, call)
                log.info(
                    "paging_stopped",
                    tenant=call.tenant,
                    request_id=call.request_id,
                    reason=error["detail"],
                )
        last = progress.line(error)
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _next_page(
        self, calls: _PageCalls, call: ForwardedCall, cursor: str | None, cycle: CursorCycle
    ) -> Page:
        """Raises `PageRefused`, `PageUnreadable`, `Unavailable` or what ``admit`` and ``forward``
        raise."""
        if cursor is None:
            raise PageUnreadable("The last page says has_more, and names no next_cursor.")
        if cycle.is_closed_by(cursor):
            raise PageUnreadable("The last page names a next_cursor that was there before.")
        if self._admit is not None:
            await self._unless_stopping(self._admit(call))
        if self._stop.is_set():
            raise Unavailable("The broker is stopping; go on from the cursor.")
        try:
            answer = LaterAnswer(self._clock.now())
            await calls.later(cursor, answer.take)
            return await self._read(answer.body())
        except PageUnreadable as unreadable:
            text = f"The next page can't be read: {unreadable.detail}."
            raise PageUnreadable(text) from None

    async def _unless_stopping(self, admission: Coroutine[Any, Any, None]) -> None:
        """Until it is over, or the stop begins: it may wait for an hour."""
        tasks = asyncio.create_task(admission), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_if_known(self, body: bytes) -> Page | None:
        try:
            return await self._read(body)
        except PageUnreadable:
            return None

    async def _read(self, body: bytes) -> Page:
        reader = PageReader(body)
        for _ in reader.steps():
            await self._clock.sleep(0)
        assert reader.page is not None  # noqa: S101  # it is, or the reader has raised
        return reader.page

    async def _send_rows(self, lines: bytes | bytearray, send: Send) -> None:
        """Until they are taken, but for what fits into the sockets' buffers."""
        for start in range(0, len(lines), PIECE_BYTES):
            piece = bytes(lines[start : start + PIECE_BYTES])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        # The server waits ahead of a piece, not behind it.
        await send({"type": "http.response.body", "body": b"", "more_body": True})


class _PageCalls:
    """The proxied calls for the pages that one ``call`` asks for."""

    def __init__(self, forward: Forward, scope: Scope, call: ForwardedCall) -> None:
        self.query: bytes = scope["query_string"]
        self._forward = forward
        self._scope = scope
        self._call = call
        # What the API compresses could not be read; and the answer is ours.
        self._headers: Headers = [
            pair for pair in scope["headers"] if pair[0] not in (HEADER, b"accept-encoding")
        ]
        self._headers.append((b"accept-encoding", b"identity"))

    async def first(self, send: Send) -> None:
        await self._ask({**self._scope, "headers": self._headers}, send)

    async def later(self, cursor: str, send: Send) -> None:
        headers = [pair for pair in self._headers if pair[0] not in _CONDITIONS]
        if not any(name == b"broker-retry" for name, _value in headers):
            headers.append((b"broker-retry", b"%d" % MOST_RETRIES))
        query = with_cursor(self.query, cursor)
        scope = {**self._scope, "headers": headers, "query_string": query, "state": {}}
        await self._ask(scope, send)

    async def _ask(self, scope: Scope, send: Send) -> None:
        await self._call.confirm()
        await self._forward(scope, _nothing_comes, send, replace(self._call, status=0))


async def _nothing_comes() -> Message:
    """The ASGI ``receive`` of a page's call: the caller of all pages is watched elsewhere."""
    never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await never


def _stream_headers(received: Headers) -> Headers:
    headers = [
        pair
        for pair in received
        if pair[0] not in _OF_ONE_PAGE and not pair[0].startswith(b"content-")
    ]
    return [
        *headers,
        (b"content-type", b"application/x-ndjson"),
        (b"cache-control", b"no-store"),
    ]
