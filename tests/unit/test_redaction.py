"""Every kind of secret through every log call of the code base, at DEBUG, by both renderers."""

from __future__ import annotations

import ast
import io
import itertools
import json
import logging
import random
import string
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
from cryptography.fernet import Fernet
from hypothesis import given, settings, strategies

from ignition_broker.cipher import Cipher
from ignition_broker.redaction import (
    _HEADER_SHAPES,
    _PLAIN,
    _RUN,
    _SHAPES,
    Redactor,
    _random,
)
from ignition_broker.telemetry import LineHandler, configure_logging

SOURCE = Path(__file__).parents[2] / "src" / "ignition_broker"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
NO_FIELDS = {"exc_info"}


@dataclass(frozen=True)
class LogCall:
    module: str
    level: str
    event: str
    fields: tuple[str, ...]
    place: str


def log_calls(source: Path = SOURCE) -> list[LogCall]:
    """``log.LEVEL("event", field=…)``, and the same by another name that was given to it."""
    calls = []
    for file in sorted(source.rglob("*.py")):
        module = ".".join(file.relative_to(source.parent).with_suffix("").parts)
        for function in ast.walk(ast.parse(file.read_text())):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            levels = {
                each.targets[0].id: "error"
                for each in ast.walk(function)
                if isinstance(each, ast.Assign)
                and isinstance(each.targets[0], ast.Name)
                and any(is_level(part) for part in ast.walk(each.value))
                and not isinstance(each.value, ast.Call)
            }
            for call in ast.walk(function):
                if not isinstance(call, ast.Call):
                    continue
                if is_level(call.func):
                    level = call.func.attr
                elif isinstance(call.func, ast.Name) and call.func.id in levels:
                    level = levels[call.func.id]
                else:
                    continue
                (event,) = call.args
                assert isinstance(event, ast.Constant), ast.unparse(call)
                names = tuple(each.arg for each in call.keywords if each.arg not in NO_FIELDS)
                assert None not in names, ast.unparse(call)
                place = f"{file.name}:{call.lineno}"
                calls.append(LogCall(module, level, event.value, names, place))
    return calls


def is_level(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in {"log", "logger"}
        and node.attr in LEVELS
    )


def text(seed: int, length: int, alphabet: str = string.ascii_letters + string.digits + "-_"):
    chance = random.Random(seed)
    return "aA1" + "".join(chance.choice(alphabet) for _ in range(length - 3))


KEY = Fernet.generate_key().decode()
KNOWN = "the client's own words, no shape at all"
SECRETS = {
    "api key": "ibk_" + text(1, 43),
    "access token": "fake_access_" + text(2, 43),
    "state": text(3, 43),
    "code": "fake_code_" + text(4, 43),
    "short code": text(5, 24),
    "browser mark": text(6, 43),
    "jwt": f"eyJ{text(7, 30)}.eyJ{text(8, 60)}.{text(9, 43)}",
    "encryption key": KEY,
    "ciphertext": Cipher([KEY]).encrypt("acme", "access_token", "x").decode(),
    "known": KNOWN,
}
NAMED = "hunter2hunter"
"""Without a shape of its own: masked for what it is called."""

SENTENCES = {
    "alone": "{}",
    "in a sentence": "Ignition said: not {} of this client.",
    "as a header": "Authorization: Bearer {}",
    "in a URL": "GET http://localhost:3000/callback?code={}&x=1 failed",
    "in a path": "/connect/{}",
    "in JSON": '{{"access_token": "{}", "n": 1}}',
    "in JSON of JSON": '"{{\\"refresh_token\\": \\"{}\\"}}"',
    "in a form": "grant_type=refresh_token&refresh_token={}",
    "in a repr": "Settings(client_secret='{}')",
}


class Shown:
    """What a library puts into a log line: an object whose repr quotes its input."""

    def __init__(self, shown: str) -> None:
        self.shown = shown

    def __repr__(self) -> str:
        return f"Shown({self.shown!r})"


SHAPES: list[Callable[[str], object]] = [
    str,
    str.encode,
    lambda value: {"request": {"headers": [("authorization", value)]}, value: 1},
    lambda value: [Shown(value)],
    ValueError,
]


@pytest.fixture(params=["json", "console"])
def log_to(request, monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    kept = logging.getLogger().handlers[:], logging.getLogger().level, sys.excepthook
    configure_logging("DEBUG", request.param, secrets=[KNOWN])

    def taken() -> str:
        text = written.getvalue()
        written.seek(0)
        written.truncate()
        return text

    yield taken
    logging.getLogger().handlers[:], sys.excepthook = kept[0], kept[2]
    logging.getLogger().setLevel(kept[1])


def test_the_log_calls_of_the_code_base_are_all_found():
    calls = log_calls()
    written = sum(
        line.count(f"log.{level}(") for line in all_source().splitlines() for level in LEVELS
    )
    assert len(calls) >= written > 15
    assert {"grant_refreshed", "refresh_failed", "request_failed"} <= {c.event for c in calls}


def all_source() -> str:
    return "\n".join(file.read_text() for file in SOURCE.rglob("*.py"))


def test_no_secret_comes_out_of_any_log_call(log_to):
    for call in log_calls():
        log = structlog.get_logger(call.module)
        for kind, secret in SECRETS.items():
            for sentence, shape in zip(SENTENCES.values(), itertools.cycle(SHAPES)):
                value = sentence.format(secret)
                fields = dict.fromkeys(call.fields, shape(value))
                write(log, call.level, call.event, fields, value)
            check(log_to(), call.event, kind)


def test_no_secret_comes_out_in_any_shape_in_any_sentence(log_to):
    log = structlog.get_logger("test")
    for kind, secret in SECRETS.items():
        for sentence, shape in itertools.product(SENTENCES.values(), SHAPES):
            value = sentence.format(secret)
            write(log, "debug", "said", {"reason": shape(value)}, value)
        check(log_to(), "said", kind)


def check(out: str, event: str, kind: str) -> None:
    assert event in out
    assert SECRETS[kind] not in out, (event, kind)
    assert SECRETS[kind][3:20] not in out, (event, kind)


def write(log, level: str, event: str, fields: dict[str, object], value: str) -> None:
    """Every call while an exception is being handled that quotes the secret, with a cause."""
    try:
        try:
            raise KeyError(value)  # noqa: TRY301
        except KeyError as cause:
            raise RuntimeError(f"could not: {value}") from cause
    except RuntimeError as error:
        more = {} if level == "exception" else {"exc_info": error}
        getattr(log, level)(event, **fields, **more)


def test_what_is_called_a_secret_is_masked_whatever_it_looks_like(log_to):
    log = structlog.get_logger("test")
    for sentence in list(SENTENCES.values())[2:]:
        log.info("said", reason=sentence.format(NAMED))
    log.info("said", reason=f"postgresql://broker:{NAMED}@db/broker refused")
    out = log_to()
    assert out.count("said") == len(SENTENCES) - 1
    assert NAMED not in out


HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
CREDENTIALS = {
    "token": f"Token {HEX}",
    "token with a name": f'Token token="{HEX}", nonce="x"',
    "api key": f"ApiKey {HEX}",
    "bare": HEX,
    "short": "Basic YTpi",
    "words": "correct horse battery staple",
    "digest": f'Digest username="jo", realm="r", nonce="n", response="{HEX}"',
    "made up": f"X-Made-Up a=1; b={HEX}",
    "quoted cookie": f'"theme"=dark; sid={HEX}',
    "cookie": f"theme=dark; sid={HEX}; lang=en",
}
PARTS = [HEX, HEX[:20], "YTpi", "battery", "username", "dark"]
HEADER_NAMES = [
    "authorization",
    "Proxy-Authorization",
    "X-Forwarded-Authorization",
    "Cookie",
    "set-cookie",
    "X-API-Key",
    "apikey",
    "X-Auth-Token",
    "PRIVATE-TOKEN",
    "X-Amz-Security-Token",
    "Ocp-Apim-Subscription-Key",
    "X-Hub-Signature",
    "X-Client-Secret",
    "Authentication-Info",
]
LINES: dict[str, Callable[[str, str], object]] = {
    "on the wire": lambda name, value: f"< {name}: {value}",
    "on the wire, without a space": lambda name, value: f"{name}:{value}\r\nhost: x",
    "in a repr of the wire": lambda name, value: repr(f"GET / HTTP/1.1\r\n{name}: {value}\r\n"),
    "in JSON": lambda name, value: json.dumps({name: value, "n": 1}),
    "in JSON of JSON": lambda name, value: json.dumps(json.dumps({name: value})),
    "in a repr": lambda name, value: repr({name: value}),
    "in ASGI's headers": lambda name, value: repr([(name.lower().encode(), value.encode())]),
    "as curl has it": lambda name, value: f"curl -H '{name}: {value}' http://x",
    "as a keyword": lambda name, value: f"Request({name}={value!r}, n=1)",
    "as bytes": lambda name, value: f"{name}: {value}".encode(),
    "as a mapping": lambda name, value: {name: value},
    "as a mapping of lists": lambda name, value: {name: [value]},
    "as a pair": lambda name, value: [(name, value)],
    "as a pair of bytes": lambda name, value: ((name.encode(), value.encode()),),
    "in an object": lambda name, value: Shown(f"{name}: {value}"),
}


@pytest.mark.parametrize("line", LINES)
def test_the_value_of_a_header_that_authenticates_is_masked_whatever_its_scheme(log_to, line):
    log = structlog.get_logger("test")
    for name, (kind, value) in itertools.product(HEADER_NAMES, CREDENTIALS.items()):
        log.debug("said", reason=LINES[line](name, value))
        out = log_to()
        assert "said" in out
        assert not [part for part in PARTS if part in out], (name, kind, out)
    log.debug("said", reason=LINES[line]("accept-language", "de, en;q=0.5"))
    assert "de, en;q=0.5" in log_to()


def test_a_field_that_is_called_like_such_a_header_is_masked(log_to):
    fields = {name.lower().replace("-", "_"): "hunter2" for name in HEADER_NAMES}
    structlog.get_logger("test").debug("said", **fields)
    out = log_to()
    assert "said" in out
    assert "hunter2" not in out


def test_a_credential_by_its_scheme_alone_is_masked(log_to):
    log = structlog.get_logger("test")
    for scheme in ("Bearer", "Basic", "Token", "ApiKey", "Negotiate", "DPoP", "key", "JWT"):
        log.debug("said", reason=f"not {scheme} {HEX}, said the API")
        assert HEX[:20] not in log_to(), scheme
    log.debug("said", reason="the token expires at 2024-01-01; its key is primary")
    assert "the token expires at 2024-01-01; its key is primary" in log_to()


def test_library_records_and_uncaught_errors_are_masked_too(log_to):
    secret = SECRETS["api key"]
    logging.getLogger("library").debug("sent %s to %r", secret, {"x": secret})
    try:
        raise RuntimeError(f"with {secret}")  # noqa: TRY301
    except RuntimeError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    out = log_to()
    assert "sent ibk_" in out
    assert "crashed" in out
    assert secret not in out


def test_a_line_that_cannot_be_written_does_not_show_its_arguments(log_to):
    (handler,) = (each for each in logging.getLogger().handlers if isinstance(each, LineHandler))
    record = logging.LogRecord("library", logging.ERROR, "", 1, "%d", (SECRETS["api key"],), None)
    handler.handle(record)
    out = log_to()
    assert "a log line of library could not be written" in out
    assert SECRETS["api key"] not in out


def test_text_without_secrets_stays_readable():
    event = {
        "tenant": "a-customer-with-quite-a-long-name-2024",
        "request_id": "4f2a9c01d3e5000001",
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "kind": "ClientConnectorCertificateError",
        "owner": "broker-7d9f6c5b4-x2x9z-1-5e884898/12",
        "reason": "Ignition answers status 503; code: invalid_grant, state=connected",
        "file": "/usr/local/lib/python3.11/site-packages/sqlalchemy/engine/base.py",
        "version": 12,
        "took": 0.5,
        "is_live": True,
        "nothing": None,
    }
    assert Redactor()(None, "info", dict(event)) == event
    assert json.dumps(event)


@settings(max_examples=2000)
@given(strategies.from_regex(_PLAIN, fullmatch=True))
def test_what_is_passed_unlooked_at_has_no_secrets_shape(text):
    assert not any(shape.search(text) for shape, _mask in (*_SHAPES, *_HEADER_SHAPES))
    assert _RUN.sub(_random, text) == text
