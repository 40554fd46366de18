"""Pages of a list, and the links between them."""

import re
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import urlencode

from starlette.requests import Request

from ignition_broker.fake_ignition.errors import MalformedRequest

HOST = re.compile(r"[A-Za-z0-9.\-_\[\]:]+")
Item = TypeVar("Item")


def integer_parameter(
    request: Request, name: str, *, default: int, lowest: int, highest: int
) -> int:
    """Read a whole number from the query.

    Raises
    ------
    MalformedRequest
        It is no number, or out of bounds.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,18}", text) or not lowest <= int(text) <= highest:
        raise MalformedRequest(f"{name} must be a whole number from {lowest} to {highest}.")
    return int(text)


def page_of(items: Sequence[Item], number: int, size: int) -> Sequence[Item]:
    """Return the page of that number, counted from 1; empty past the end."""
    return items[(number - 1) * size : number * size]


def link_header(request: Request, number: int, size: int, total: int) -> str:
    """Name the neighbouring pages by absolute URLs. RFC 8288 section 3."""
    neighbours = {}
    if number * size < total:
        neighbours["next"] = number + 1
    if number > 1:
        neighbours["prev"] = number - 1
    address = f"{request.scope['scheme']}://{authority(request)}{request.url.path}"
    return ", ".join(
        f'<{address}?{urlencode({"page": neighbour, "per_page": size})}>; rel="{relation}"'
        for relation, neighbour in neighbours.items()
    )


def authority(request: Request) -> str:
    """Return the host and port of the Host header, or this server's own if it is malformed."""
    host = request.headers.get("host", "")
    if HOST.fullmatch(host):
        return host
    server, port = request.scope["server"]
    return f"{server}:{port}"
