"""Assembles the fake: routes, error handlers and fault injection."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import assert_never

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ignition_broker.fake_ignition.api import (
    CHALLENGE,
    NOT_ACCEPTED,
    UNAUTHORIZED,
    Api,
    RequiresBearer,
)
from ignition_broker.fake_ignition.authorization import AuthorizationEndpoint, answer_untrusted
from ignition_broker.fake_ignition.control import Control
from ignition_broker.fake_ignition.echo import Echo
from ignition_broker.fake_ignition.errors import (
    AuthorizationRefused,
    MalformedRequest,
    OAuthError,
    UntrustedRequest,
)
from ignition_broker.fake_ignition.fault_injection import FaultInjection
from ignition_broker.fake_ignition.journal import Journal
from ignition_broker.fake_ignition.ledger import Ledger
from ignition_broker.fake_ignition.options import FakeIgnitionOptions
from ignition_broker.fake_ignition.pages import home, stylesheet
from ignition_broker.fake_ignition.provider import Clock, Provider
from ignition_broker.fake_ignition.rate_limit import Limited, RateLimit
from ignition_broker.fake_ignition.reporting import (
    Reporting,
    ReportingRefused,
    answer_reporting_refused,
    refusal,
)
from ignition_broker.fake_ignition.token_endpoint import TokenEndpoint, answer_oauth_error


def create_fake_ignition(
    options: FakeIgnitionOptions | None = None, *, clock: Clock = time.time
) -> Starlette:
    """Make a fake Ignition to be served by uvicorn, in one process.

    Parameters
    ----------
    options
        Policy and the registered client; the defaults are those that `dev` uses.
    clock
        Seconds since the epoch; a test hands in its own.
    """
    options = options or FakeIgnitionOptions()
    journal = None if options.state_path is None else Journal(options.state_path)
    provider = Provider(options, Ledger(journal), clock)
    authorization = AuthorizationEndpoint(provider)
    tokens = TokenEndpoint(provider)
    paths = options.dialect

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        provider.ledger.close()

    app = Starlette(
        routes=[
            Route(paths.token, tokens.issue, methods=["POST"]),
            Route(paths.authorize, authorization.ask),
            Route(paths.authorize, authorization.decide, methods=["POST"]),
            Route(paths.revoke, tokens.revoke, methods=["POST"]),
            *protected_routes(provider),
            *Control(provider).routes(),
            Route("/", home(paths)),
            Route("/ignition.css", stylesheet),
            Route("/healthz", healthz),
        ],
        exception_handlers={
            OAuthError: answer_oauth_error,
            AuthorizationRefused: authorization.answer_refusal,
            UntrustedRequest: answer_untrusted,
            ReportingRefused: answer_reporting_refused,
            MalformedRequest: answer_malformed,
            ClientDisconnect: answer_nobody,
        },
        lifespan=lifespan,
    )
    # A slash added or taken away would be a redirect that the real API does not give.
    app.router.redirect_slashes = False
    app.middleware_stack = FaultInjection(app.build_middleware_stack(), provider)
    return app


def protected_routes(provider: Provider) -> list[Route]:
    """List the endpoints of the profile's API, each behind the Bearer check."""
    match provider.options.profile:
        case "guide":
            echo = Echo()
            routes = [*Api().routes(), Route("/echo", echo), Route("/echo/{anything:path}", echo)]
            for route in routes:
                route.app = RequiresBearer(route.app, provider, UNAUTHORIZED)
        case "ignitionapp":
            routes = Reporting(provider).routes(provider.options.dialect.api_base)
            limit = RateLimit(provider)
            unauthorized = refusal(401, NOT_ACCEPTED, CHALLENGE)
            for route in routes:
                route.app = RequiresBearer(Limited(route.app, limit), provider, unauthorized)
        case _:
            assert_never(provider.options.profile)
    return routes


async def healthz(_request: Request) -> Response:
    """Say that the fake is up."""
    return JSONResponse({"status": "ok"})


async def answer_malformed(_request: Request, error: Exception) -> Response:
    """Say what is wrong with a request."""
    if not isinstance(error, MalformedRequest):
        raise error
    return JSONResponse({"error": error.description}, status_code=error.status)


async def answer_nobody(_request: Request, _error: Exception) -> Response:
    """End a request whose client disconnected while sending."""
    return Response(status_code=400)
