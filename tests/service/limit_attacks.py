"""The limit on failed attempts, attacked through an engine that stands in front of the broker.

Who is who is told by the caller's own address: every address of 127.0.0.0/8 is this machine's, and
the engine, which asks the broker from 127.0.0.1, is the only one that the broker trusts.
"""

from __future__ import annotations

import contextlib
import itertools
import socket

from tests.service.wire import Answer

LIMIT = 5
SETTINGS = {"BROKER_FAILED_ATTEMPTS": str(LIMIT), "BROKER_TRUSTED_PROXIES": "127.0.0.1"}

GUESSES = itertools.count(1)
CALLERS = itertools.count(10)
PATHS = ("/proxy/acme/v1/me", "/proxy/acme/%2e/odd", "/token/acme", "/admin/tenants")
"""By the engine's question for a token; by the broker's own proxy; and by none of both."""

FORGERIES = [
    "X-Forwarded-For: {0}",
    "x-forwarded-for: {0}, {0}",
    "X-FORWARDED-FOR: {0}\r\nX-Forwarded-For: {0}",
    "X_Forwarded_For: {0}",
    "X-Forwarded-For: {0}\r\nConnection: close, X-Forwarded-For",
    "X-Forwarded-For: \r\nX-Real-IP: {0}",
    "X-Forwarded-For: unknown, {0}, 127.0.0.1",
    "Forwarded: for={0};proto=https;by=127.0.0.1",
    "X-Real-IP: {0}",
    "X-Client-IP: {0}\r\nClient-IP: {0}\r\nTrue-Client-IP: {0}",
    "X-Cluster-Client-IP: {0}\r\nCF-Connecting-IP: {0}",
    "X-Envoy-External-Address: {0}\r\nX-Envoy-Internal: true",
]


def new_address() -> str:
    """Of somebody who was never here."""
    return f"127.0.1.{next(CALLERS)}"


def guess() -> str:
    return f"ibk_guess-through-an-engine-{next(GUESSES)}"


def ask(port: int, address: str, key: str, path: str, *headers: str) -> Answer:
    lines = [f"GET {path} HTTP/1.1", "Host: broker", f"Authorization: Bearer {key}", *headers]
    if not any("Connection" in line for line in headers):
        lines.append("Connection: close")
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), 10, (address, 0))) as c:
        c.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return Answer.read(c)


def exhaust(port: int, address: str, path: str = PATHS[0], *headers: str) -> list[int]:
    return [ask(port, address, guess(), path, *headers).status for _ in range(LIMIT + 2)]


def check_a_stranger_shuts_out_nobody_else(broker, port: int) -> None:
    """By each way in: the guesser is held back, and others' keys, never seen before, are good."""
    for number, path in enumerate(PATHS):
        stranger, other = new_address(), new_address()
        assert exhaust(port, stranger, path)[LIMIT:] == [429, 429], path
        for way in PATHS:
            assert ask(port, stranger, guess(), way).status == 429, (path, way)
        key = broker.make_key(f"beside-{port}-{number}", ["proxy", "token"], ["acme"])
        assert ask(port, other, key, "/proxy/acme/v1/me").status == 200, path
        assert ask(port, other, guess(), path).status == 401, path


def check_no_header_frees_its_sender(port: int) -> None:
    for forgery, path in itertools.product(FORGERIES, PATHS[:3]):
        sender = new_address()
        statuses = [
            ask(port, sender, guess(), path, forgery.format(f"203.0.113.{number}")).status
            for number in range(LIMIT + 2)
        ]
        # 400: the engine itself refuses the headers, and the broker was not asked.
        assert statuses[LIMIT:] == [429, 429] or set(statuses) == {400}, (forgery, path, statuses)


def check_no_header_locks_another_out(port: int) -> None:
    for forgery, path in itertools.product(FORGERIES, PATHS[:3]):
        sender, victim = new_address(), new_address()
        exhaust(port, sender, path, forgery.format(victim))
        assert ask(port, victim, guess(), path).status == 401, (forgery, path)
