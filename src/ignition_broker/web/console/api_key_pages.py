"""The console's pages for API keys: list, create, replace, revoke."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from ignition_broker.broker.admins.sessions import AdminSession
from ignition_broker.broker.callers import api_keys as broker_api_keys
from ignition_broker.broker.callers.api_key_rotation import rotate_api_key
from ignition_broker.broker.errors import Conflict, InvalidRequest, NotFound
from ignition_broker.model import ApiKey, Scope
from ignition_broker.web.console.return_paths import (
    API_KEYS,
    NEW_API_KEY,
    REVOKE_API_KEY,
    ROTATE_API_KEY,
    address,
    sign_in_address,
)
from ignition_broker.web.console.typed import typed
from ignition_broker.web.dependencies import BrokerServices, actor_of
from ignition_broker.web.rendering import console_page, failure

router = APIRouter(include_in_schema=False)

FormText = Annotated[str, Form(max_length=2000)]
NEVER: Final = "never"
LIFETIMES: Final = ("30", "90", "365", NEVER)
GRACES: Final = {"0": "not at all", "3600": "an hour", "86400": "a day", "604800": "a week"}
"""For how many seconds a replaced key may still work."""


@dataclass(frozen=True, slots=True)
class KeyDraft:
    """What was typed into the form for a new key; ``days`` should be one of `LIFETIMES`."""

    name: str
    scopes: tuple[str, ...]
    tenants: str
    paths: str
    days: str

    @property
    def page(self) -> str:
        """The address of the form filled in with this; none of it is secret."""
        fields = {
            "name": self.name,
            "scopes": ",".join(self.scopes),
            "tenants": self.tenants,
            "paths": self.paths,
            "days": self.days,
        }
        return address(NEW_API_KEY, [(name, value) for name, value in fields.items() if value])

    def expires_at(self, now: datetime) -> datetime | None:
        """When the key ends; None for never. Raises `InvalidRequest` for other ``days``."""
        if self.days not in LIFETIMES:
            raise InvalidRequest(f"days: one of {', '.join(LIFETIMES)}.")
        return None if self.days == NEVER else now + timedelta(days=int(self.days))


@router.get(API_KEYS)
async def api_keys(request: Request, services: BrokerServices) -> Response:
    session = await services.sessions.read(request)
    if session is None:
        return RedirectResponse(sign_in_address(API_KEYS), 303)
    keys = await broker_api_keys.list_api_keys(services.database)
    return console_page(
        "api_keys.html", session=session, here=API_KEYS, keys=keys, now=services.clock.now()
    )


@router.get(NEW_API_KEY)
async def new_api_key(
    request: Request,
    services: BrokerServices,
    name: str = "",
    scopes: str = "token,proxy",
    tenants: str = "",
    paths: str = "",
    days: str = "90",
) -> Response:
    """Shows the form. Asks for a fresh sign-in first, so that nothing typed is lost to one
    later."""
    draft = KeyDraft(name, tuple(scopes.split(",")), tenants, paths, days)
    session = await services.sessions.read(request)
    if session is None or not session.is_fresh:
        return RedirectResponse(sign_in_address(draft.page), 303)
    return console_page(
        "new_api_key.html",
        session=session,
        here=API_KEYS,
        draft=draft,
        scopes=list(Scope),
        error=None,
    )


@router.post(NEW_API_KEY)
async def create_api_key(
    request: Request,
    services: BrokerServices,
    name: FormText = "",
    scopes: Annotated[list[str] | None, Form()] = None,
    tenants: FormText = "",
    paths: FormText = "",
    days: FormText = "90",
    csrf: FormText = "",
) -> Response:
    draft = KeyDraft(name.strip(), tuple(scopes or ()), tenants, paths, days)
    session = await services.sessions.of_form(request, csrf)
    if not session.is_fresh:
        return RedirectResponse(sign_in_address(draft.page), 303)
    try:
        api_key, key = await broker_api_keys.create_api_key(
            services.database,
            services.clock,
            name=draft.name,
            scopes=draft.scopes,
            tenants=[part.strip() for part in draft.tenants.split(",") if part.strip()],
            expires_at=draft.expires_at(services.clock.now()),
            paths=[line.strip() for line in draft.paths.splitlines() if line.strip()] or None,
            actor=actor_of(request, session.caller),
        )
    except (InvalidRequest, Conflict) as error:
        status = 409 if isinstance(error, Conflict) else 422
        return console_page(
            "new_api_key.html",
            status,
            session=session,
            here=API_KEYS,
            draft=draft,
            scopes=list(Scope),
            error=error.detail,
        )
    return _created(session, f"{api_key.name} is created", api_key, key)


@router.get(ROTATE_API_KEY)
async def confirm_rotation(request: Request, services: BrokerServices, name: str = "") -> Response:
    session = await services.sessions.read(request)
    if session is None or not session.is_fresh:
        return RedirectResponse(sign_in_address(address(ROTATE_API_KEY, [("name", name)])), 303)
    return _rotation(session, name)


@router.post(ROTATE_API_KEY)
async def rotate(
    request: Request,
    services: BrokerServices,
    name: FormText = "",
    grace: FormText = "86400",
    csrf: FormText = "",
) -> Response:
    session = await services.sessions.of_form(request, csrf)
    if not session.is_fresh:
        return RedirectResponse(sign_in_address(address(ROTATE_API_KEY, [("name", name)])), 303)
    if grace not in GRACES:
        raise InvalidRequest(f"grace: one of {', '.join(GRACES)}.")
    try:
        api_key, key = await rotate_api_key(
            services.database,
            services.clock,
            typed("name", name),
            grace_seconds=int(grace),
            actor=actor_of(request, session.caller),
        )
    except InvalidRequest as error:
        return _rotation(session, name, 422, error.detail)
    except NotFound as error:
        return failure(404, "No such API key", error.detail, "It may have been revoked.")
    services.access.forget(name)
    return _created(session, f"{api_key.name} is replaced", api_key, key)


@router.get(REVOKE_API_KEY)
async def confirm_revocation(
    request: Request, services: BrokerServices, name: str = ""
) -> Response:
    session = await services.sessions.read(request)
    if session is None or not session.is_fresh:
        return RedirectResponse(sign_in_address(address(REVOKE_API_KEY, [("name", name)])), 303)
    return console_page(
        "confirm.html",
        session=session,
        here=API_KEYS,
        title=f"Revoke the key {name}?",
        text="Whoever uses it is refused from now on, on every replica; nobody can undo that.",
        action=REVOKE_API_KEY,
        fields={"name": name},
        button="Revoke",
        button_id="revoke-key",
        back=API_KEYS,
        back_text="Back to the API keys",
    )


@router.post(REVOKE_API_KEY)
async def revoke_api_key(
    request: Request, services: BrokerServices, name: FormText = "", csrf: FormText = ""
) -> Response:
    session = await services.sessions.of_form(request, csrf)
    if not session.is_fresh:
        # A sign-in does not repeat the form, so it leads back to the question.
        return RedirectResponse(sign_in_address(address(REVOKE_API_KEY, [("name", name)])), 303)
    try:
        await broker_api_keys.revoke_api_key(
            services.database, typed("name", name), actor_of(request, session.caller)
        )
    except NotFound as error:
        return failure(404, "No such API key", error.detail, "It may have been revoked already.")
    services.access.forget(name)
    return RedirectResponse(API_KEYS, 303)


def _rotation(
    session: AdminSession, name: str, status: int = 200, error: str | None = None
) -> Response:
    return console_page(
        "rotate_api_key.html",
        status,
        session=session,
        here=API_KEYS,
        name=name,
        graces=GRACES,
        error=error,
    )


def _created(session: AdminSession, title: str, api_key: ApiKey, key: str) -> Response:
    # No redirect to the list, since the key is in this answer alone.
    return console_page(
        "api_key_created.html",
        session=session,
        here=API_KEYS,
        title=title,
        api_key=api_key,
        key=key,
    )
