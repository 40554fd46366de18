"""Every field and method of uvicorn's that `server/` touches, by name.

uvicorn promises none of them. Whoever allows a new version of it in `pyproject.toml` reads here
what to look at; the service tests say whether each still means the same.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvicorn
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

import ignition_broker
from ignition_broker.server.uvicorn_internals import STARTUP_FAILURE

SOURCE = Path(ignition_broker.__file__).parent

# What we read, write or call.
PROTOCOL_FIELDS = {
    *("app_state", "client", "config", "cycle", "flow", "headers", "loop", "parser", "pipeline"),
    *("scope", "server_state", "timeout_keep_alive", "transport", "url"),
}
# What we override, and so count on being called.
PROTOCOL_METHODS = {
    *("connection_lost", "connection_made", "data_received", "on_headers_complete"),
    *("on_message_begin", "on_response_complete", "_should_upgrade", "_start_asgi_task"),
}
CYCLE_FIELDS = {
    *("chunked_encoding", "default_headers", "disconnected", "expected_content_length"),
    *("keep_alive", "message_event", "more_body", "on_response", "response_complete"),
    *("response_started", "scope", "send", "transport", "waiting_for_100_continue"),
}
FLOW_FIELDS = {"read_paused", "resume_reading", "write_paused"}
STATE_FIELDS = {"connections", "tasks", "total_requests"}
SERVER_FIELDS = {"config", "lifespan", "server_state", "servers", "should_exit", "started"}
SERVER_METHODS = {"capture_signals", "handle_exit", "on_tick", "run", "shutdown", "startup"}
CONFIG_FIELDS = {"app", "bind_socket", "http_protocol_class", "workers"}
LIFESPAN_FIELDS = {"shutdown", "state"}


class Transport(asyncio.Transport):
    def get_extra_info(self, _name, default=None):
        return default

    def pause_reading(self):
        pass


async def unending(_scope, _receive, _send) -> None:
    await asyncio.Event().wait()


@pytest.fixture
async def protocol() -> AsyncIterator[HttpToolsProtocol]:
    made = HttpToolsProtocol(
        config=uvicorn.Config(unending, log_config=None), server_state=ServerState(), app_state={}
    )
    made.connection_made(Transport())
    made.data_received(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    yield made
    for task in made.tasks:
        task.cancel()


@pytest.fixture
async def server() -> uvicorn.Server:
    made = uvicorn.Server(uvicorn.Config(unending, port=0, log_config=None, lifespan="off"))
    made.config.load()
    made.lifespan = made.config.lifespan_class(made.config)
    await made.startup()
    for listening in made.servers:
        listening.close()
    return made


def missing(owner: object, names: set[str]) -> set[str]:
    return {name for name in names if not hasattr(owner, name)}


async def test_the_protocol_has_what_we_touch(protocol):
    assert missing(protocol, PROTOCOL_FIELDS | PROTOCOL_METHODS) == set()
    assert missing(protocol.cycle, CYCLE_FIELDS) == set()
    assert missing(protocol.flow, FLOW_FIELDS) == set()
    assert missing(protocol.server_state, STATE_FIELDS) == set()


async def test_the_protocol_makes_its_requests_as_we_expect(protocol):
    assert isinstance(protocol.cycle, RequestResponseCycle)
    assert isinstance(protocol.flow, FlowControl)
    assert protocol.cycle.scope is protocol.scope
    assert protocol.cycle.scope["headers"] is protocol.headers
    assert protocol.cycle.on_response == protocol.on_response_complete
    assert not protocol.pipeline, "pairs of a request and the app, the next on the right"
    protocol.data_received(b"GET /2 HTTP/1.1\r\nhost: x\r\n\r\n")
    assert [cycle.scope["path"] for cycle, _app in protocol.pipeline] == ["/2"]
    assert list(inspect.signature(protocol._start_asgi_task).parameters) == ["cycle", "app"]


async def test_the_server_has_what_we_touch(server):
    assert missing(server, SERVER_FIELDS | SERVER_METHODS) == set()
    assert missing(server.config, CONFIG_FIELDS) == set()
    assert missing(LifespanOn(server.config), LIFESPAN_FIELDS) == set()
    assert list(inspect.signature(server.on_tick).parameters) == ["counter"]
    assert list(inspect.signature(server.handle_exit).parameters) == ["sig", "frame"]
    assert server.config.http_protocol_class is HttpToolsProtocol
    assert STARTUP_FAILURE == 3, "what `serve` exits with where it could not start"


async def test_the_lists_above_leave_nothing_out(protocol, server):
    """Whatever our classes touch on `self` and don't define is uvicorn's, and listed."""
    ours = {
        "OrderedHttpProtocol": protocol,
        "BoundedHttpProtocol": protocol,
        "DrainingHttpProtocol": protocol,
        "ProxyHttpProtocol": protocol,
        "StoppingServer": server,
    }
    listed = PROTOCOL_FIELDS | PROTOCOL_METHODS | SERVER_FIELDS | SERVER_METHODS
    classes = [
        node
        for path in (SOURCE / "server").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.name in ours
    ]
    assert {node.name for node in classes} == set(ours)
    for node in classes:
        touched = {
            each.attr
            for each in ast.walk(node)
            if isinstance(each, ast.Attribute) and getattr(each.value, "id", "") == "self"
        }
        overridden = {each.name for each in node.body if hasattr(each, "name")}
        theirs = {name for name in touched | overridden if hasattr(ours[node.name], name)}
        assert theirs - listed - {"__init__"} == set(), node.name


async def test_what_is_touched_of_a_request_is_listed_too(protocol):
    names = {"newest", "answering", "running", "cycle", "request"}
    touched = {
        each.attr
        for path in (SOURCE / "server").glob("*.py")
        for each in ast.walk(ast.parse(path.read_text()))
        if isinstance(each, ast.Attribute)
        and (getattr(each.value, "id", None) or getattr(each.value, "attr", None)) in names
    }
    assert {name for name in touched if hasattr(protocol.cycle, name)} - CYCLE_FIELDS == set()


def test_one_module_imports_uvicorns_submodules():
    importing = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if re.search(r"^\s*(?:from|import) uvicorn\.", path.read_text(), re.MULTILINE)
    }
    assert importing == {"server/uvicorn_internals.py"}


def test_uvicorns_version_has_an_upper_bound():
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["project"]
    (bound,) = [each for each in project["dependencies"] if each.startswith("uvicorn")]
    assert re.fullmatch(r"uvicorn\[standard\]>=0\.[0-9]+,<0\.[0-9]+", bound)
