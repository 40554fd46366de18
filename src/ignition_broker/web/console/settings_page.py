"""The console's page for the settings, which it only shows."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from ignition_broker.web.console.return_paths import SETTINGS, sign_in_address
from ignition_broker.web.dependencies import BrokerServices
from ignition_broker.web.rendering import console_page

router = APIRouter(include_in_schema=False)


@router.get(SETTINGS)
async def settings(request: Request, services: BrokerServices) -> Response:
    session = await services.sessions.read(request)
    if session is None:
        return RedirectResponse(sign_in_address(SETTINGS), 303)
    return console_page(
        "settings.html", session=session, here=SETTINGS, settings=services.shown_settings
    )
