"""The page behind a connect link, and the result of connecting."""

from __future__ import annotations

from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from ignition_broker.broker.errors import AccountMismatch, UnknownClient
from ignition_broker.broker.grants.connect_links import LinkForged, LinkSpent
from ignition_broker.broker.grants.connect_outcomes import ConnectFailed, StillConnecting
from ignition_broker.broker.grants.sign_in_origins import sign_in_origin
from ignition_broker.storage.errors import StorageError
from ignition_broker.web.csrf import FormForged, check_site
from ignition_broker.web.dependencies import BrokerServices
from ignition_broker.web.public_pages import KEEPS_OPENER, PublicPages

router = APIRouter(include_in_schema=False)


@router.get("/connect/{link}")
async def link_page(request: Request, services: BrokerServices, link: str) -> Response:
    """The page behind a connect link. It changes nothing, since mail scanners fetch links."""
    elsewhere = services.own_origin.redirect_if_elsewhere(request.scope)
    if elsewhere is not None:
        return _keeping_the_opener(elsewhere)
    try:
        found = await services.connector.link(link)
    except (LinkForged, LinkSpent) as error:
        return _link_failure(services.public_pages, error)
    asks = services.identification.asks(found.tenant)
    return services.public_pages.link(found.tenant, found.return_to, asks=asks)


@router.post("/connect/{link}")
async def follow_link(request: Request, services: BrokerServices, link: str) -> Response:
    elsewhere = services.own_origin.redirect_if_elsewhere(request.scope)
    if elsewhere is not None:
        # Back to the link's page at our own origin, where it is to be clicked once more; it is not
        # spent yet.
        return _keeping_the_opener(elsewhere)
    browser = services.sessions.browser(request) or services.sessions.new_browser()
    ends = services.public_pages.ends_of_link(None)
    try:
        check_site(request)
        url = await services.connector.follow_link(
            link, browser=browser, request_id=request.state.request_id
        )
    except (LinkForged, LinkSpent) as error:
        services.audit_recorder.record_denial(
            "connect",
            "refused",
            route="/connect/{link}",
            request_id=request.state.request_id,
            tenant=error.tenant,
        )
        return _link_failure(services.public_pages, error)
    except UnknownClient as error:
        title = "This link does not work"
        return ends.failed(404, title, error.detail, "failed", "Ask whoever sent it.")
    except FormForged as error:
        title = "This link was not clicked here"
        return ends.failed(400, title, error.detail, "failed", "Open it yourself.")
    answer = RedirectResponse(url, 303, {"Cache-Control": "no-store"})
    services.sessions.mark_browser(answer, browser)
    return _keeping_the_opener(answer)


@router.get("/callback")
async def callback(request: Request, services: BrokerServices) -> Response:
    query = parse_qsl(
        request.scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="replace"
    )
    browser = services.sessions.browser(request)
    ends = services.public_pages.ends(None)
    try:
        ends = services.public_pages.ends(await sign_in_origin(services.database, query, browser))
        connected = await services.connector.finish(
            query, browser=browser, request_id=request.state.request_id
        )
    except ConnectFailed as failed:
        if failed.tenant is None:
            services.audit_recorder.record_denial(
                "connect", "refused", route="/callback", request_id=request.state.request_id
            )
        return ends.failed(
            400,
            failed.title,
            failed.detail,
            "access-denied" if failed.error == "access_denied" else "failed",
            grant=failed.tenant,
            error=failed.error,
        )
    except AccountMismatch as other:
        return ends.mismatched(other)
    except StillConnecting as waiting:
        return ends.connecting(waiting.tenant or "")
    except StorageError:
        return ends.failed(
            503,
            "The connection could not be stored",
            "The database is away.",
            "unavailable",
            "Begin again in a minute.",
        )
    asks = services.identification.asks(connected.tenant)
    return ends.connected(connected, asks=asks)


def _link_failure(pages: PublicPages, error: LinkForged | LinkSpent) -> Response:
    is_known = isinstance(error, LinkSpent)
    ends = pages.ends_of_link(error.return_to if isinstance(error, LinkSpent) else None)
    return ends.failed(
        410 if is_known else 404,
        "This link does not work",
        error.detail,
        "link-ended",
        "Ask whoever sent it for a new one.",
    )


def _keeping_the_opener(redirect: Response) -> Response:
    """A redirect shows nothing, and under its own policy would part the page that it leads to from
    the one that opened it."""
    redirect.headers.update(KEEPS_OPENER)
    return redirect
