"""Takes the API's answer to the call for one page."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from starlette.types import Message, Send

from ignition_broker.outbound.content_coding import decoded
from ignition_broker.outbound.exchange import Headers
from ignition_broker.proxy.paging.errors import PageRefused, PageUnreadable
from ignition_broker.rate_limits import as_texts, seconds_to_wait

LARGEST_PAGE_BYTES = 16 << 20
LARGEST_CODED_BYTES = 1 << 20
"""Of a page that is compressed although it was asked for plain."""
_TOO_LARGE = f"it is larger than {LARGEST_PAGE_BYTES} bytes"


@dataclass(slots=True)
class FirstAnswer:
    """Keeps a JSON answer of status 200, which may be a page; passes any other on to ``send``."""

    send: Send
    start: Message | None = None
    """Of an answer that is kept."""
    _pieces: list[bytes] = field(default_factory=list)
    _size: int = 0

    async def take(self, message: Message) -> None:
        """The ASGI ``send`` of the page's call."""
        if message["type"] == "http.response.start":
            if message["status"] == 200 and _is_json(message["headers"]):
                self.start = message
            else:
                await self.send(message)
            return
        if self.start is None:
            await self.send(message)
            return
        self._pieces.append(message["body"])
        self._size += len(message["body"])
        if self._size > LARGEST_PAGE_BYTES:
            await self.pass_on(more_body=message["more_body"])

    async def pass_on(self, *, more_body: bool = False) -> None:
        """Passes on what is kept, and from now on what comes."""
        start, self.start = self.start, None
        if start is None:
            return
        await self.send(start)
        pieces, self._pieces = self._pieces, []
        for number, piece in enumerate(pieces, 1):
            is_last = number == len(pieces) and not more_body
            await self.send({"type": "http.response.body", "body": piece, "more_body": not is_last})

    def body(self) -> bytes | None:
        """The page in clear; None where it can't be had."""
        assert self.start is not None  # noqa: S101  # asked of an answer that is kept
        try:
            return _plain(b"".join(self._pieces), self.start["headers"])
        except PageUnreadable:
            return None


@dataclass(slots=True)
class LaterAnswer:
    """Keeps a page, and raises for anything else. ``now``: turns a date into a time to wait."""

    now: datetime
    _headers: Headers = field(default_factory=list)
    _pieces: list[bytes] = field(default_factory=list)
    _size: int = 0

    async def take(self, message: Message) -> None:
        """The ASGI ``send`` of the page's call. Raises `PageRefused` or `PageUnreadable`, so that
        the rest of the answer is not read."""
        if message["type"] == "http.response.start":
            self._headers = message["headers"]
            status: int = message["status"]
            if status != 200:
                raise PageRefused(
                    f"The API answered {status} to the next page.",
                    status=status,
                    retry_after_seconds=seconds_to_wait(
                        status, as_texts(self._headers), now=self.now
                    ),
                )
            return
        self._pieces.append(message["body"])
        self._size += len(message["body"])
        if self._size > LARGEST_PAGE_BYTES:
            raise PageUnreadable(_TOO_LARGE)

    def body(self) -> bytes:
        """The page in clear. Raises `PageUnreadable`."""
        return _plain(b"".join(self._pieces), self._headers)


def _is_json(headers: Headers) -> bool:
    for name, value in headers:
        if name == b"content-type":
            media_type = value.partition(b";")[0].strip().lower()
            return media_type == b"application/json" or media_type.endswith(b"+json")
    return False


def _plain(body: bytes, headers: Headers) -> bytes:
    codings = b",".join(value for name, value in headers if name == b"content-encoding")
    plain, flaw = body, None
    if len(body) <= LARGEST_CODED_BYTES:
        plain, flaw = decoded(body, codings.decode("latin-1"), limit_bytes=LARGEST_PAGE_BYTES)
    elif codings.strip().lower() not in (b"", b"identity"):
        flaw = f"it is compressed, and larger than {LARGEST_CODED_BYTES} bytes"
    if flaw is not None:
        raise PageUnreadable(flaw)
    return plain
