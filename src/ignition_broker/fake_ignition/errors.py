"""What the fake refuses, as the protocol words it.

Exception
 ├── OAuthError              the token and revocation endpoints: RFC 6749 section 5.2
 ├── AuthorizationRefused    the authorization endpoint, told to the client: section 4.1.2.1
 ├── UntrustedRequest        the same, told to the user alone: nobody may be redirected
 └── MalformedRequest        the control endpoints and the API
"""

from collections.abc import Mapping


class OAuthError(Exception):
    """A request refused with one of the codes of RFC 6749 section 5.2."""

    def __init__(
        self,
        error: str,
        description: str,
        *,
        status: int = 400,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status
        self.headers = headers or {}


class AuthorizationRefused(Exception):
    """An authorization request whose redirect URI is good and whose rest is not."""

    def __init__(self, redirect_uri: str, state: str | None, error: str, description: str) -> None:
        super().__init__(f"{error}: {description}")
        self.redirect_uri = redirect_uri
        self.state = state
        self.error = error
        self.description = description


class UntrustedRequest(Exception):
    """An authorization request whose client or redirect URI is not registered."""


class MalformedRequest(Exception):
    """A request to the API or a control endpoint that makes no sense."""

    def __init__(self, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.description = description
        self.status = status
