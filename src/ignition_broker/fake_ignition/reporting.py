"""The reporting API of Ignition's public API: read only, page by page, a practice at a time."""

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ignition_broker.fake_ignition.errors import MalformedRequest
from ignition_broker.fake_ignition.paging import integer_parameter
from ignition_broker.fake_ignition.practices import SIZES, Practice
from ignition_broker.fake_ignition.provider import Provider

SCOPE = "reporting"
DEFAULT_LIMIT = 100
HIGHEST_LIMIT = 250
CURSOR = re.compile(r"([a-z_]+)\.([0-9]{1,12})")


class ReportingRefused(MalformedRequest):
    """A request to the reporting API that is refused, in that API's words."""


@dataclass(frozen=True)
class Reporting:
    """`GET /reporting/{resource}`, for a token that covers it."""

    provider: Provider

    def routes(self, base: str) -> list[Route]:
        """List the endpoints below ``base``; what else is asked there is not found."""
        return [
            Route(f"{base}/reporting/{{resource}}", self.list_rows),
            Route(f"{base}/{{anything:path}}", self.find_nothing),
        ]

    async def list_rows(self, request: Request) -> Response:
        """Return a page of rows, and the cursor of the next one."""
        grant, resource = request.state.grant, request.path_params["resource"]
        if resource not in SIZES:
            raise ReportingRefused("There is no such resource.", status=404)
        if SCOPE not in grant.scope.split(" "):
            raise ReportingRefused(f"The token lacks the scope {SCOPE}.", status=403)
        practice = Practice(grant.practice, self.provider.options.practice_size)
        limit = _limit(request)
        first = max(_after_cursor(request, resource), _first_updated(request, practice, resource))
        end = min(first + limit, practice.count(resource))
        has_more = end < practice.count(resource)
        rows = [practice.row(resource, number) for number in range(first, end)]
        pagination = {
            "has_more": has_more,
            "next_cursor": _cursor(resource, end) if has_more else None,
            "limit": limit,
        }
        return JSONResponse({"data": rows, "meta": {"pagination": pagination}})

    async def find_nothing(self, _request: Request) -> Response:
        """Answer for paths that the API does not have."""
        raise ReportingRefused("There is no such endpoint.", status=404)


def refusal(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Word a refusal as the API does."""
    errors: dict[str, Any] = {"errors": [{"detail": detail}]}
    return JSONResponse(errors, status, headers=headers)


async def answer_reporting_refused(_request: Request, error: Exception) -> Response:
    """Say what is wrong with a request."""
    if not isinstance(error, ReportingRefused):
        raise error
    return refusal(error.status, error.description)


def _limit(request: Request) -> int:
    try:
        return integer_parameter(
            request, "limit", default=DEFAULT_LIMIT, lowest=1, highest=HIGHEST_LIMIT
        )
    except MalformedRequest as error:
        raise ReportingRefused(error.description) from error


def _cursor(resource: str, number: int) -> str:
    return base64.urlsafe_b64encode(f"{resource}.{number}".encode()).rstrip(b"=").decode()


def _after_cursor(request: Request, resource: str) -> int:
    """Return the number of the row that a page begins with."""
    cursor = request.query_params.get("cursor")
    if cursor is None:
        return 0
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        named = CURSOR.fullmatch(base64.b64decode(padded, altchars=b"-_", validate=True).decode())
    except (ValueError, binascii.Error):
        named = None
    if named is None or named[1] != resource or _cursor(resource, int(named[2])) != cursor:
        raise ReportingRefused("cursor is not one that this resource gave out.")
    return int(named[2])


def _first_updated(request: Request, practice: Practice, resource: str) -> int:
    """Return the number of the first row that the query's ``updated_from`` lets through."""
    text = request.query_params.get("updated_from")
    if text is None:
        return 0
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return practice.first_updated_from(resource, moment)
    except (ValueError, OverflowError) as error:
        raise ReportingRefused("updated_from must be a date or time by ISO 8601.") from error
