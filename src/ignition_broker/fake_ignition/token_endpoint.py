"""The token endpoint and the revocation endpoint."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from ignition_broker.fake_ignition.client_authentication import authenticate_client
from ignition_broker.fake_ignition.errors import OAuthError
from ignition_broker.fake_ignition.events import AccessTokenExpired, fingerprint
from ignition_broker.fake_ignition.faults import PRESENTED_KEY, fault_of
from ignition_broker.fake_ignition.issuing import (
    Issued,
    redeem_code,
    refresh_grant,
    revoke_grant,
)
from ignition_broker.fake_ignition.parameters import read_token_parameters
from ignition_broker.fake_ignition.provider import Provider

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


@dataclass(frozen=True)
class TokenEndpoint:
    """Answers clients, never browsers."""

    provider: Provider

    async def issue(self, request: Request) -> Response:
        """Exchange a code or a refresh token. RFC 6749 sections 4.1.3, 5.1 and 6."""
        parameters = await self._authenticated_parameters(request)
        match required(parameters, "grant_type"):
            case "authorization_code":
                issued = redeem_code(
                    self.provider,
                    code=required(parameters, "code"),
                    redirect_uri=parameters.get("redirect_uri"),
                    code_verifier=parameters.get("code_verifier"),
                )
            case "refresh_token":
                issued = self._refresh(parameters, request.scope)
            case _:
                raise OAuthError("unsupported_grant_type", "Use a code or a refresh token.")
        return token_answer(issued)

    async def revoke(self, request: Request) -> Response:
        """Revoke a token; an unknown one is as good as revoked. RFC 7009 section 2."""
        parameters = await self._authenticated_parameters(request)
        token = required(parameters, "token")
        ledger, now = self.provider.ledger, self.provider.clock()
        if refresh_token := ledger.find_refresh_token(token):
            if revoke_grant(self.provider, refresh_token.grant, "revoked_by_client"):
                self.provider.counters.revocations += 1
        elif ledger.live_grant(token, now):
            ledger.record(AccessTokenExpired(now, fingerprint(token)))
            self.provider.counters.revocations += 1
        return Response(status_code=200, headers=NO_STORE)

    async def _authenticated_parameters(self, request: Request) -> dict[str, str]:
        parameters = await read_token_parameters(request)
        try:
            authenticate_client(
                request.headers.get("authorization"), parameters, self.provider.options
            )
        except OAuthError:
            self.provider.counters.client_authentication_failures += 1
            raise
        return parameters

    def _refresh(self, parameters: Mapping[str, str], request: Scope) -> Issued:
        refresh_token = required(parameters, "refresh_token")
        if known := self.provider.ledger.find_refresh_token(refresh_token):
            request[PRESENTED_KEY] = known.sha256
        try:
            return refresh_grant(
                self.provider,
                refresh_token=refresh_token,
                scope=parameters.get("scope"),
                fault=fault_of(request),
                host=_addressed(request),
            )
        except OAuthError:
            self.provider.counters.refresh_failures += 1
            raise


def _addressed(request: Scope) -> str:
    """Return the Host header, and the query that the token URL had (RFC 6749 section 3.2)."""
    host = Headers(scope=request).get("host", "")
    query = request["query_string"].decode("latin-1")
    return f"{host}?{query}" if query else host


def required(parameters: Mapping[str, str], name: str) -> str:
    """Return a parameter that the request can't do without."""
    try:
        return parameters[name]
    except KeyError:
        raise OAuthError("invalid_request", f"{name} is missing.") from None


def token_answer(issued: Issued) -> JSONResponse:
    """Word the answer as RFC 6749 section 5.1 has it."""
    answer: dict[str, str | int] = {
        "access_token": issued.access_token,
        "token_type": "Bearer",
        "expires_in": issued.expires_in,
        "scope": issued.scope,
    }
    if issued.refresh_token is not None:
        answer["refresh_token"] = issued.refresh_token
    return JSONResponse(answer, headers=NO_STORE)


async def answer_oauth_error(_request: Request, error: Exception) -> Response:
    """Word a refusal as RFC 6749 section 5.2 has it."""
    if not isinstance(error, OAuthError):
        raise error
    return JSONResponse(
        {"error": error.error, "error_description": error.description},
        status_code=error.status,
        headers={**NO_STORE, **error.headers},
    )
