"""Requests to an ASGI app, with no server between."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> int:
        return self.messages[0]["status"]

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.messages[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of a problem."""
        return self.json["type"].removeprefix("urn:ignition-broker:")


def http_scope(method: str, path: str, query: bytes = b"", headers=()) -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode("latin-1"),
        "query_string": query,
        "headers": list(headers),
        "client": ("192.0.2.1", 40000),
        "state": {"request_id": "id-1"},
    }


DISCONNECT = {"type": "http.disconnect"}


def pieces(*bodies: bytes) -> list[dict[str, Any]]:
    last = len(bodies) - 1
    return [
        {"type": "http.request", "body": body, "more_body": number < last}
        for number, body in enumerate(bodies)
    ]


async def ask(app, scope: dict[str, Any], messages=None) -> Answer:
    """The answer to a request whose body comes in ``messages``, an empty one by default."""
    coming = pieces(b"") if messages is None else list(messages)
    answer = Answer()

    async def receive():
        return coming.pop(0) if coming else DISCONNECT

    async def send(message):
        answer.messages.append(message)

    await app(scope, receive, send)
    return answer
