"""Renders pages from the console's templates. Here since `web.errors` needs it as well."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from ignition_broker.broker.admins.sessions import AdminSession
from ignition_broker.grant_ids import DEFAULT_CLIENT, SEPARATOR, client_of, tenant_of
from ignition_broker.web import console_values

FOLDER = Path(__file__).parent / "console"
_templates = Environment(
    loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined
)


def grant_name(grant: str) -> str:
    """The tenant, and its client where that is another than the default."""
    return f"{tenant_of(grant)} ({client_of(grant)})" if SEPARATOR in grant else grant


_templates.globals["DEFAULT_CLIENT"] = DEFAULT_CLIENT
_templates.filters |= {
    "grant_name": grant_name,
    "tenant_of": tenant_of,
    "client_of": client_of,
    "utc": console_values.utc,
    "iso": console_values.iso,
    "from_now": console_values.from_now,
    "tenant_page": console_values.tenant_page,
    "detail": console_values.detail,
}
# form-action is missing for the reason that `web.middleware` gives.
CONSOLE_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; frame-ancestors 'none'"
)


def page(name: str, status: int = 200, /, **values: object) -> HTMLResponse:
    """The template of that name as an answer that no cache keeps."""
    html = _templates.get_template(name).render(**values)
    return HTMLResponse(html, status, {"Cache-Control": "no-store"})


def console_page(
    name: str, status: int = 200, /, *, session: AdminSession, here: str, **values: object
) -> HTMLResponse:
    """A page for a signed-in admin, with the script that shows local times. ``here``: the page of
    the navigation that it belongs to."""
    answer = page(name, status, session=session, here=here, **values)
    answer.headers["Content-Security-Policy"] = CONSOLE_SECURITY_POLICY
    return answer


def failure(
    status: int,
    title: str,
    detail: str,
    next_step: str,
    *,
    grant: str | None = None,
    error: str | None = None,
) -> HTMLResponse:
    """A page that says what went wrong and what to do next."""
    return page(
        "failure.html",
        status,
        title=title,
        detail=detail,
        next_step=next_step,
        grant=grant,
        error=error,
    )
