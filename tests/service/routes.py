"""The service's routes and its OpenAPI document, read from the app without starting it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cryptography.fernet import Fernet
from fastapi import FastAPI
from starlette.routing import BaseRoute

from ignition_broker.app import create_app
from ignition_broker.settings import Settings


def router_of_the_service() -> FastAPI:
    """What stands behind the routes that are answered ahead of it."""
    app: Any = create_app(
        Settings(
            _env_file=None,
            ignition_client_id="client",
            ignition_client_secret="secret",
            database_url="postgresql://broker@localhost/broker",
            broker_encryption_keys=Fernet.generate_key().decode(),
        )
    )
    while not isinstance(app, FastAPI):
        app = app._app
    return app


def declared(app: FastAPI) -> set[tuple[str, str]]:
    """Method and path of every route, those included that the document leaves out."""
    return {
        (method, route.path.replace(":path}", "}"))
        for route in _flat(app.routes)
        for method in route.methods or ()
    }


def _flat(routes: list[BaseRoute]) -> Iterator[Any]:
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from _flat(included.routes)
