"""The OpenAPI document shown in a browser by Swagger UI, which is loaded from its CDN.

It runs in the console's origin, so the scripts are fixed: one release, by its hash, and none
inline.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from starlette.responses import FileResponse, Response

from ignition_broker.web.rendering import FOLDER, page

DOCS_PATH: Final = "/docs"
SWAGGER_UI: Final = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.35.0/"
SCRIPT_HASH: Final = "sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9"
STYLE_HASH: Final = "sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I"
DOCS_CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; script-src 'self' {SWAGGER_UI}; style-src 'self' {SWAGGER_UI}; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


@router.get(DOCS_PATH)
async def docs() -> Response:
    return page("docs.html", swagger_ui=SWAGGER_UI, script_hash=SCRIPT_HASH, style_hash=STYLE_HASH)


@router.get("/docs.js")
async def docs_script() -> Response:
    return FileResponse(FOLDER / "static" / "docs.js", media_type="text/javascript")
