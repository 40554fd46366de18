"""Pages from the console's templates. Not in `web.console`, since `web.errors` needs them too."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

FOLDER = Path(__file__).parent / "console"
_templates = Environment(
    loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined
)


def page(name: str, status: int = 200, /, **values: object) -> HTMLResponse:
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
    return page(
        "failure.html",
        status,
        title=title,
        detail=detail,
        next_step=next_step,
        tenant=tenant,
        error=error,
    )
