"""Reads what clients send: query strings, forms and JSON objects, all as untrusted."""

import json
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from ignition_broker.fake_ignition.errors import MalformedRequest, OAuthError

MAX_BODY_BYTES = 64 * 1024
MAX_PARAMETERS = 100


OF_THE_BODY = frozenset(
    {
        *("client_id", "client_secret", "grant_type", "code", "code_verifier", "redirect_uri"),
        *("refresh_token", "scope", "token", "token_type_hint"),
    }
)


class BodyTooLarge(Exception):
    """The body is longer than anything that these endpoints have a use for."""


async def read_token_parameters(request: Request) -> dict[str, str]:
    """Read a token or revocation request, form or JSON. RFC 6749 section 3.2.

    Raises
    ------
    OAuthError
        ``invalid_request``: malformed, repeated, or in the URI (section 2.3.1 forbids it there).
        A token URL may have a query of its own (section 3.2).
    """
    query = request.scope["query_string"].decode("latin-1")
    if not OF_THE_BODY.isdisjoint(name for name, _ in parse_qsl(query, keep_blank_values=True)):
        raise OAuthError("invalid_request", "Parameters belong in the body, not in the URI.")
    try:
        body = await read_body(request)
    except BodyTooLarge as error:
        raise OAuthError("invalid_request", "The body is too large.", status=413) from error
    try:
        match media_type(request):
            case "application/x-www-form-urlencoded":
                return parse_form(body)
            case "application/json":
                return parse_json_strings(body)
    except ValueError as error:
        raise OAuthError("invalid_request", str(error)) from error
    raise OAuthError("invalid_request", "Send a form or a JSON object.")


async def read_json_object(request: Request) -> dict[str, Any]:
    """Read a JSON object; an empty body stands for an empty one.

    Raises
    ------
    MalformedRequest
        The body is too large or no JSON object.
    """
    try:
        body = await read_body(request)
    except BodyTooLarge as error:
        raise MalformedRequest("The body is too large.", status=413) from error
    try:
        return parse_json_object(body) if body.strip() else {}
    except ValueError as error:
        raise MalformedRequest(str(error)) from error


async def read_body(request: Request) -> bytes:
    """Read the whole body, up to a limit.

    Raises
    ------
    BodyTooLarge
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge
    return bytes(body)


def media_type(request: Request) -> str:
    """Return the body's media type without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def parse_form(encoded: bytes) -> dict[str, str]:
    """Decode a form or query string; parameters without a value are omitted ones.

    RFC 6749 section 3.1 and 3.2: none may be repeated.
    """
    try:
        pairs = parse_qsl(
            encoded.decode("ascii"),
            keep_blank_values=False,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError as error:
        raise ValueError("The parameters are not form-encoded UTF-8.") from error
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise ValueError("A parameter is repeated.")
    return parameters


def parse_json_strings(encoded: bytes) -> dict[str, str]:
    """Decode a JSON object whose members are all strings; empty ones are omitted ones."""
    members = parse_json_object(encoded)
    if not all(isinstance(value, str) for value in members.values()):
        raise ValueError("Every member must be a string.")
    return {name: value for name, value in members.items() if value}


def parse_json_object(encoded: bytes) -> dict[str, Any]:
    """Decode a JSON object whose text can be written as UTF-8."""
    try:
        members = json.loads(encoded)
        # A lone surrogate is good JSON and no text: it would fail later, where it is hashed.
        json.dumps(members, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError("The body is not JSON.") from error
    if not isinstance(members, dict):
        raise ValueError("The body is not a JSON object.")  # noqa: TRY004
    return members
