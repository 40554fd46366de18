"""A token endpoint with rotation and reuse detection, whose answers a test can shape."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs


@dataclass
class Reply:
    """``cut_bytes``: so many of the announced bytes are never sent. Status 0: no answer at all."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    cut_bytes: int = 0


Shape = Callable[[dict], Reply]
"""From the fields of a proper answer to what is sent."""


def proper(fields: dict) -> Reply:
    return Reply(json.dumps(fields).encode())


def merged(**changes) -> Shape:
    return lambda fields: proper(fields | changes)


class OddProvider:
    """``shapes`` are taken by the next answers, one each; then all are proper again."""

    def __init__(self) -> None:
        self.shapes: list[Shape] = []
        self.reuses = 0
        self.requests: list[dict[str, str]] = []
        self.revocations: list[dict[str, str]] = []
        self.revocation_replies: list[Reply] = []
        self.lifetime: int | None = 3600
        self.gives_refresh_tokens = True
        self.more: dict[str, object] = {}
        self._serial = itertools.count(1)
        self._families: dict[str, int] = {}
        self._current: dict[int, str] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                form = {k: v[0] for k, v in parse_qs(self.rfile.read(length).decode()).items()}
                if self.path == "/revoke":
                    provider.revocations.append(form)
                    replies = provider.revocation_replies
                    reply = replies.pop(0) if replies else Reply(b"")
                else:
                    reply = provider.carry_out(form)
                if not reply.status:
                    self.close_connection = True
                    return
                self.send_response_only(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body[: len(reply.body) - reply.cut_bytes])
                self.close_connection = bool(reply.cut_bytes)

            def log_message(self, *_arguments) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_arguments) -> None:
                """A client that leaves is no error."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def carry_out(self, form: dict[str, str]) -> Reply:
        self.requests.append(form)
        shape = self.shapes.pop(0) if self.shapes else proper
        if form["grant_type"] == "refresh_token":
            family = self._families.get(form["refresh_token"], 0)
            if self._current.get(family) != form["refresh_token"]:
                self.reuses += 1
                self._current.pop(family, None)
                return Reply(b'{"error": "invalid_grant"}', 400)
        else:
            family = next(self._serial)
        number = next(self._serial)
        fields: dict[str, object] = {"access_token": f"access-{number}", "token_type": "Bearer"}
        if self.lifetime is not None:
            fields["expires_in"] = self.lifetime
        if self.gives_refresh_tokens:
            refresh_token = f"refresh-{number}"
            self._families[refresh_token] = family
            self._current[family] = refresh_token
            fields["refresh_token"] = refresh_token
        return shape(fields | self.more)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
