"""Describes errors and headers in the OpenAPI document, so that a route needs one line for them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel, Field

from ignition_broker.problems import TYPE_PREFIX
from ignition_broker.web.errors import PROBLEMS

Responses = dict[int | str, dict[str, Any]]

# `invalid-request` has two statuses: 422 here, and the proxy's paths say 400 by themselves.
_STATUSES: Final = {kind.code: kind.status for kind in reversed(PROBLEMS.values())}
_REQUEST_ID: Final = "X-Request-ID"


class Problem(BaseModel):
    """An error (RFC 9457 section 3)."""

    type: str = Field(description=f"`{TYPE_PREFIX}CODE`")
    title: str
    status: int
    detail: str
    request_id: str = Field(description="The answer's X-Request-ID, by which to search the log.")
    tenant: str | None = Field(None, description="Where the error is about one.")
    client: str | None = Field(None, description="The OAuth client, unless it is the default one.")


def header(description: str, **schema: object) -> dict[str, Any]:
    """A header that every such answer has."""
    return {"description": description, "required": True, "schema": {"type": "string", **schema}}


NO_STORE_HEADER: Final = {"Cache-Control": header("Never kept by a cache", const="no-store")}
_RETRY_AFTER: Final = {"Retry-After": header("Seconds", pattern="^[0-9]+$")}
_HEADERS: Final[dict[int, dict[str, Any]]] = {
    401: {"WWW-Authenticate": header("RFC 6750 section 3", pattern="^Bearer ")},
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}


def problems(*codes: str) -> Responses:
    """The errors that a route may answer with, by the codes of `problems`."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(_STATUSES[code], []).append(code)
    return {status: problem_answer(status, *found) for status, found in by_status.items()}


def problem_answer(status: int, *codes: str) -> dict[str, Any]:
    """The answer of one status that has one of these codes."""
    types = [f"{TYPE_PREFIX}{code}" for code in codes]
    narrowed = {"properties": {"type": {"enum": types}, "status": {"const": status}}}
    schema = {"allOf": [{"$ref": "#/components/schemas/Problem"}, narrowed]}
    return {
        "description": f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in codes)}",
        "headers": {**NO_STORE_HEADER, **_HEADERS.get(status, {})},
        "content": {"application/problem+json": {"schema": schema}},
    }


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Adds the header that every answer has, and the model that `problems` refers to."""
    components = document.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
    components["headers"] = {
        _REQUEST_ID: header("The caller's own, if it sent a sane one; else one made here")
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if "{" in path:
                # The answer of `web.path_spelling` to an escape that a parameter does not need.
                operation["responses"].setdefault("400", problem_answer(400, "invalid-request"))
            for response in operation["responses"].values():
                response.setdefault("headers", {})[_REQUEST_ID] = {
                    "$ref": f"#/components/headers/{_REQUEST_ID}"
                }
    return document


class DocumentedApp(FastAPI):
    """A FastAPI app whose OpenAPI document is `complete`."""

    def openapi(self) -> dict[str, Any]:
        return complete(super().openapi())
