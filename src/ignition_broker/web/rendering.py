"""Renders pages from the console's templates. Here since `web.errors` needs it as well."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

FOLDER = Path(__file__).parent / "console"
_templates = Environment(
    loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined
)


def page(name: str, status: int = 200, /, **values: object) -> HTMLResponse:
    """The template of that name as an answer that no cache keeps."""
    html = _templates.get_template(name).render(**values)
    return HTMLResponse(html, status, {"Cache-Control": "no-store"})


def failure(
    status: int,
    title: str,
    detail: str,
    next_step: str,
    *,
    tenant: str | None = None,
    error: str | None = None,
) -> HTMLResponse:
    """A page that says what went wrong and what to do next."""
    return page(
        "failure.html",
        status,
        title=title,
        detail=detail,
        next_step=next_step,
        tenant=tenant,
        error=error,
    )
