"""Answers to what never became a request, as `web.errors` words them."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Refusal:
    """``code`` and ``detail`` of a problem (RFC 9457)."""

    status: HTTPStatus
    code: str
    title: str
    detail: str

    def answer(self) -> bytes:
        """As it goes out, with an id of its own. The last on its connection.

        It bears ``Broker-Error`` too: whether it was for the proxy may not have been read.
        """
        request_id = secrets.token_hex(9)
        problem = {
            "type": f"urn:ignition-broker:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }
        body = json.dumps(problem).encode("ascii")
        head = (
            f"HTTP/1.1 {self.status:d} {self.status.phrase}\r\n"
            "content-type: application/problem+json\r\n"
            f"content-length: {len(body)}\r\ncache-control: no-store\r\n"
            f"broker-error: {self.code}\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n"
        )
        return head.encode("ascii") + body


NOT_READABLE = Refusal(
    HTTPStatus.BAD_REQUEST,
    "invalid-request",
    "The request is malformed",
    "What was sent can't be read as HTTP.",
)
TUNNEL = Refusal(
    HTTPStatus.BAD_REQUEST,
    "invalid-request",
    "The request is malformed",
    "The method CONNECT is not carried out.",
)
