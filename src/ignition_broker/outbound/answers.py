"""A request's whole answer, read within a bound and as far as it can be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from ignition_broker.outbound.client import exchange_error
from ignition_broker.outbound.content_coding import decoded
from ignition_broker.outbound.errors import ExchangeError


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers``: names in lower case.

    ``flaw`` says why ``body`` may not be what the server meant to send: a content coding that
    can't be undone, or too many bytes. ``broke_off`` is the error that ended it before its end;
    status and headers count nevertheless.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    flaw: str | None = None
    broke_off: ExchangeError | None = None


async def whole_answer(
    http: httpx.AsyncClient, request: httpx.Request, *, limit_bytes: int
) -> Answer:
    """Sends ``request`` and reads at most ``limit_bytes`` of the answer.

    httpx's own decoding would refuse what is labelled wrongly: see `content_coding`. Raises
    `ExchangeError` where not even a status came.
    """
    try:
        response = await http.send(request, stream=True)
    except httpx.TransportError as error:
        raise exchange_error(error) from error
    try:
        body, flaw, broke_off = await _received(response, limit_bytes)
    finally:
        await response.aclose()
        # httpx has bound the stream to its response: a cycle that only the garbage collector frees.
        del response.stream
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1")
        for name, value in response.headers.raw
    }
    plain, undecoded = decoded(body, headers.get("content-encoding", ""), limit_bytes=limit_bytes)
    return Answer(response.status_code, headers, plain, flaw or undecoded, broke_off)


async def _received(
    response: httpx.Response, limit_bytes: int
) -> tuple[bytes, str | None, ExchangeError | None]:
    """What came of the body, what is wrong with it, and what ended it early."""
    if response.is_stream_consumed:
        return response.content, None, None  # A mock's, which has read it.
    body = b""
    try:
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > limit_bytes:
                return body[:limit_bytes], f"it is larger than {_size(limit_bytes)}", None
    except httpx.TransportError as error:
        return body, None, exchange_error(error)
    return body, None, None


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"
