"""Answers to bytes that never became a request, so that no route can answer them."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from http import HTTPStatus

from ignition_broker.problems import UNREADABLE, ProblemKind


@dataclass(frozen=True, slots=True)
class Refusal:
    """One such answer; it is the last on its connection."""

    kind: ProblemKind
    detail: str

    def answer(self) -> bytes:
        """The head and body to write, with a new request id.

        It bears ``Broker-Error`` too, since the path may not have been read: the call may have been
        one to the proxy.
        """
        request_id = secrets.token_hex(9)
        body = json.dumps(self.kind.members(self.detail, request_id)).encode("ascii")
        status = HTTPStatus(self.kind.status)
        head = (
            f"HTTP/1.1 {status:d} {status.phrase}\r\n"
            "content-type: application/problem+json\r\n"
            f"content-length: {len(body)}\r\ncache-control: no-store\r\n"
            f"broker-error: {self.kind.code}\r\n"
            f"x-request-id: {request_id}\r\nconnection: close\r\n\r\n"
        )
        return head.encode("ascii") + body


NOT_READABLE = Refusal(UNREADABLE, "What was sent can't be read as HTTP.")
TUNNEL = Refusal(UNREADABLE, "The method CONNECT is not carried out.")
