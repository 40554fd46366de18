"""The authorization endpoint: the page on which a user gives or refuses consent."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit, urlunsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ignition_broker.fake_ignition.errors import AuthorizationRefused, UntrustedRequest
from ignition_broker.fake_ignition.issuing import issue_code
from ignition_broker.fake_ignition.options import FakeIgnitionOptions
from ignition_broker.fake_ignition.pages import consent_page, refusal_page
from ignition_broker.fake_ignition.parameters import (
    BodyTooLarge,
    media_type,
    parse_form,
    read_body,
)
from ignition_broker.fake_ignition.practices import DEFAULT_PRACTICE
from ignition_broker.fake_ignition.provider import Provider

SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")
PRACTICE = re.compile(r"[a-z0-9_.-]{1,64}")
S256_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class AuthorizationRequest:
    """What a client asks a user for, once judged. RFC 6749 section 4.1.1."""

    redirect_uri: str
    scope: str
    state: str | None
    code_challenge: str | None
    practice: str


@dataclass(frozen=True)
class AuthorizationEndpoint:
    """Answers browsers."""

    provider: Provider

    async def ask(self, request: Request) -> Response:
        """Show the consent page, or with ``auto=1`` take consent as given."""
        parameters = parse_or_refuse(request.scope["query_string"])
        wanted = judge(parameters, self.provider.options)
        if parameters.get("auto") == "1":
            return self._approve(wanted)
        return consent_page(self.provider.options, parameters, wanted.scope, wanted.redirect_uri)

    async def decide(self, request: Request) -> Response:
        """Take the user's click. The request is judged again: a form can be tampered with."""
        if media_type(request) != "application/x-www-form-urlencoded":
            raise UntrustedRequest("The decision did not come from the consent page.")
        try:
            parameters = parse_or_refuse(await read_body(request))
        except BodyTooLarge as error:
            raise UntrustedRequest("The decision is too long.") from error
        wanted = judge(parameters, self.provider.options)
        match parameters.get("decision"):
            case "approve":
                return self._approve(wanted)
            case "deny":
                self.provider.counters.denials += 1
                raise AuthorizationRefused(
                    wanted.redirect_uri,
                    wanted.state,
                    "access_denied",
                    "The user denied the request.",
                )
        raise UntrustedRequest("The decision is neither approve nor deny.")

    async def answer_refusal(self, _request: Request, error: Exception) -> Response:
        """Send the browser back with the error. RFC 6749 section 4.1.2.1."""
        if not isinstance(error, AuthorizationRefused):
            raise error
        return self._redirect(
            error.redirect_uri,
            error.state,
            {"error": error.error, "error_description": error.description},
        )

    def _approve(self, wanted: AuthorizationRequest) -> Response:
        self.provider.counters.approvals += 1
        code = issue_code(
            self.provider,
            redirect_uri=wanted.redirect_uri,
            scope=wanted.scope,
            code_challenge=wanted.code_challenge,
            practice=wanted.practice,
        )
        return self._redirect(wanted.redirect_uri, wanted.state, {"code": code})

    def _redirect(
        self, redirect_uri: str, state: str | None, answer: Mapping[str, str]
    ) -> RedirectResponse:
        parameters = dict(answer)
        if state is not None:
            parameters["state"] = state
        if self.provider.options.issuer is not None:
            parameters["iss"] = self.provider.options.issuer
        parts = urlsplit(redirect_uri)
        query = "&".join(filter(None, (parts.query, urlencode(parameters))))
        # RFC 9700 section 4.12: 303, so that no browser sends the form on to the client.
        return RedirectResponse(urlunsplit(parts._replace(query=query)), status_code=303)


def parse_or_refuse(encoded: bytes) -> dict[str, str]:
    """Decode the request; what can't be decoded can't be answered by redirect."""
    try:
        return parse_form(encoded)
    except ValueError as error:
        raise UntrustedRequest(str(error)) from error


def judge(parameters: Mapping[str, str], options: FakeIgnitionOptions) -> AuthorizationRequest:
    """Check an authorization request. RFC 6749 section 4.1.1, RFC 7636 section 4.3.

    Raises
    ------
    UntrustedRequest
        Unknown client or redirect URI: the browser must not be sent there.
    AuthorizationRefused
        Anything else that is wrong.
    """
    if parameters.get("client_id") != options.client_id:
        raise UntrustedRequest("The client is not registered.")
    redirect_uri = parameters.get("redirect_uri", "")
    if redirect_uri not in options.redirect_uris:
        raise UntrustedRequest("The redirect URI is not one that the client registered.")
    state = parameters.get("state")

    def refused(error: str, description: str) -> AuthorizationRefused:
        return AuthorizationRefused(redirect_uri, state, error, description)

    if "response_type" not in parameters:
        raise refused("invalid_request", "response_type is missing.")
    if parameters["response_type"] != "code":
        raise refused("unsupported_response_type", "Only response_type=code is supported.")
    scope = parameters.get("scope", options.default_scope)
    if not SCOPE.fullmatch(scope):
        raise refused("invalid_scope", "The scope is malformed.")
    challenge = parameters.get("code_challenge")
    if challenge is None and options.require_pkce:
        raise refused("invalid_request", "PKCE is required: code_challenge is missing.")
    if challenge is not None and parameters.get("code_challenge_method") != "S256":
        raise refused("invalid_request", "code_challenge_method must be S256.")
    if challenge is not None and not S256_CHALLENGE.fullmatch(challenge):
        raise refused("invalid_request", "code_challenge is not an S256 challenge.")
    practice = parameters.get("practice", DEFAULT_PRACTICE)
    if not PRACTICE.fullmatch(practice):
        raise refused("invalid_request", "The practice is malformed.")
    return AuthorizationRequest(redirect_uri, scope, state, challenge, practice)


async def answer_untrusted(_request: Request, error: Exception) -> Response:
    """Tell the user, and nobody else."""
    return refusal_page(str(error))
