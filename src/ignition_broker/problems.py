"""Every problem that an answer may name: code, status and title (RFC 9457).

The one table for the whole service: `web.errors` says which error is which problem, and
`server.refusals` answers with them where a request can't even be read. The README lists the codes
for callers; a test compares the two.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

TYPE_PREFIX: Final = "urn:ignition-broker:"


class ProblemKind(NamedTuple):
    """``code`` is for programs, ``title`` for people; ``status`` is the HTTP status."""

    code: str
    status: int
    title: str

    def members(
        self,
        detail: str,
        request_id: str | None,
        tenant: str | None = None,
        client: str | None = None,
    ) -> dict[str, Any]:
        """The JSON object of one answer (RFC 9457 section 3.1)."""
        members: dict[str, Any] = {
            "type": f"{TYPE_PREFIX}{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": detail,
            "request_id": request_id,
        }
        if tenant is not None:
            members["tenant"] = tenant
        if client is not None:
            members["client"] = client
        return members


MALFORMED: Final = ProblemKind("invalid-request", 422, "The request is malformed")
UNREADABLE: Final = ProblemKind("invalid-request", 400, "The request is malformed")
FORM_STALE: Final = ProblemKind("invalid-request", 400, "The form is stale")
PATH_REFUSED: Final = ProblemKind("invalid-request", 400, "The path is not passed on")
PATH_ENCODED: Final = ProblemKind("invalid-request", 400, "The path is needlessly percent-encoded")
SIGN_ON_FAILED: Final = ProblemKind("invalid-request", 400, "Not signed on")
UNAUTHENTICATED: Final = ProblemKind("unauthenticated", 401, "No valid API key")
FORBIDDEN: Final = ProblemKind("forbidden", 403, "Not covered by this API key")
NOT_AN_ADMIN: Final = ProblemKind("forbidden", 403, "Not an admin")
NOT_FOUND: Final = ProblemKind("not-found", 404, "Not found")
UNKNOWN_CLIENT: Final = ProblemKind("unknown-client", 404, "Unknown OAuth client")
UNKNOWN_TENANT: Final = ProblemKind("unknown-tenant", 404, "Unknown tenant")
METHOD_NOT_ALLOWED: Final = ProblemKind("method-not-allowed", 405, "Method not allowed")
TOO_SLOW: Final = ProblemKind("request-timeout", 408, "The body came too slowly")
CONFLICT: Final = ProblemKind("conflict", 409, "It exists already")
NOT_CONNECTED: Final = ProblemKind("not-connected", 409, "Tenant not connected")
REAUTHORIZATION_REQUIRED: Final = ProblemKind(
    "reauthorization-required", 409, "Tenant must be connected again"
)
NOT_RENEWABLE: Final = ProblemKind("not-renewable", 409, "The token can't be renewed")
BODY_TOO_LARGE: Final = ProblemKind("body-too-large", 413, "The body is too large")
ALLOWANCE_SPENT: Final = ProblemKind("allowance-spent", 429, "No call is left")
TOO_MANY_ATTEMPTS: Final = ProblemKind("too-many-attempts", 429, "Too many failed attempts")
RENEWED_TOO_OFTEN: Final = ProblemKind("renewed-too-often", 429, "Renewed too often")
ACCOUNT_MISMATCH: Final = ProblemKind(
    "account-mismatch", 409, "A reconnect brought another account"
)
HEADERS_TOO_LARGE: Final = ProblemKind("headers-too-large", 431, "The headers are too large")
INTERNAL: Final = ProblemKind("internal-error", 500, "Internal error")
PROVIDER_FAULT: Final = ProblemKind("provider-error", 502, "Ignition's answer is no token")
UPSTREAM_UNREACHABLE: Final = ProblemKind(
    "upstream-unreachable", 502, "Ignition's API can't be reached"
)
PAGE_REFUSED: Final = ProblemKind("page-refused", 502, "Ignition refused a page")
PAGE_UNREADABLE: Final = ProblemKind("page-unreadable", 502, "A page can't be read")
PROVIDER_UNAVAILABLE: Final = ProblemKind("provider-unavailable", 503, "Ignition is not available")
UNAVAILABLE: Final = ProblemKind("unavailable", 503, "Temporarily unavailable")
SIGN_ON_UNAVAILABLE: Final = ProblemKind("unavailable", 503, "Not signed on")
NOT_READY: Final = ProblemKind("unavailable", 503, "Not ready")
UPSTREAM_TIMEOUT: Final = ProblemKind("upstream-timeout", 504, "Ignition's API did not answer")

ALL: Final = tuple(each for each in list(globals().values()) if isinstance(each, ProblemKind))
