"""The files beside the public pages: the embed's script, the end pages' script, the brand."""

from __future__ import annotations

import hashlib
from typing import Final

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response

from ignition_broker.web.dependencies import BrokerServices
from ignition_broker.web.rendering import FOLDER

router = APIRouter(include_in_schema=False)

FRESH_SECONDS: Final = 300
_SCRIPT: Final = "text/javascript; charset=utf-8"


@router.get("/connect.js")
async def connect_script(request: Request) -> Response:
    """For pages of any origin: it holds nothing secret."""
    return _file(request, "connect.js", {"Cross-Origin-Resource-Policy": "cross-origin"})


@router.get("/connect-end.js")
async def end_script(request: Request) -> Response:
    return _file(request, "connect-end.js", {})


@router.get("/brand.css")
async def brand_style(request: Request, services: BrokerServices) -> Response:
    """The colour, which a page may not set by itself under its policy."""
    color = services.public_pages.brand.color
    style = "" if color is None else _STYLE.format(color=color)
    return _cached(request, style.encode("ascii"), "text/css; charset=utf-8", {})


@router.get("/brand/logo")
async def logo(request: Request, services: BrokerServices) -> Response:
    """An SVG that is opened as a page of its own runs nothing, and is of no origin."""
    found = services.public_pages.brand.logo
    if found is None:
        raise HTTPException(404)
    policy = {"Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'"}
    return _cached(request, found.content, found.media_type, policy)


# White on the colour is checked when the service starts. The edge is for the button on a dark page.
_STYLE: Final = """.branded .primary {{ background: {color}; border-color: {color}; color: #fff; }}
@media (prefers-color-scheme: dark) {{ .branded .primary {{ border-color: #fff; }} }}
"""


def _file(request: Request, name: str, headers: dict[str, str]) -> Response:
    return _cached(request, (FOLDER / "static" / name).read_bytes(), _SCRIPT, headers)


def _cached(request: Request, content: bytes, media_type: str, headers: dict[str, str]) -> Response:
    """Fresh for some minutes; then asked for by its hash (RFC 9110 section 13.1.2)."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**headers, "ETag": tag, "Cache-Control": f"public, max-age={FRESH_SECONDS}"}
    known = [
        each.strip().removeprefix("W/")
        for each in request.headers.get("if-none-match", "").split(",")
    ]
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
