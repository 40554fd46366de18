"""What callers can be told. `web.errors` alone knows the status and the code of each error.

BrokerError
├── Denied                            has the name of the API key, where it is known
│   ├── Unauthenticated               no key, or none that is valid
│   │   └── SessionEnded              (web.browser_sessions) an admin's session has ended
│   └── Forbidden                     the key does not cover the call
├── InvalidRequest                    something is malformed; the text says what
│   └── PathRefused                   (proxy.paths) a path that is not passed on
├── FormForged                        (web.csrf) a form without its token
├── BodyTooLarge                      (web.errors)
├── BodyTooSlow                       (web.errors)
├── NotFound
├── Conflict                          the name is taken
├── UnknownTenant
├── NotConnected                      never connected, or disconnected
├── ReauthorizationRequired           Ignition refused the refresh token for good, or the token
│                                     expired and there was no refresh token
├── NotRenewable                      there is no refresh token, so the token can't be renewed
├── ConnectFailed                     (grants.connect_outcomes) a callback connected nothing
├── StillConnecting                   (grants.connect_outcomes) it may still connect
├── LinkForged                        (grants.connect_links) no such link was ever made
├── LinkSpent                         (grants.connect_links) used, revoked or expired
├── SignOnFailed                      a single sign-on signed nobody in
├── NotAnAdmin                        a single sign-on of somebody in no group of admins
├── ProviderFault                     Ignition's answer is no token, or blames our client
└── Retryable                         worth trying again; has retry_after_seconds
    ├── TooManyAttempts               too many calls without a valid key from one address
    ├── IdentityProviderUnavailable   the identity provider is down, or its answers make no sense
    ├── ProviderUnavailable           Ignition is down or overloaded
    │   ├── NotYetAnswered            it has not answered; its answer will be stored when it comes
    │   └── RenewedTooOften           callers forced too many early renewals of this tenant
    └── Unavailable                   Postgres is away
"""

from __future__ import annotations

from datetime import datetime


class BrokerError(Exception):
    """``detail`` is for the caller to read; ``tenant``: the one that was asked for, if any."""

    def __init__(self, detail: str, *, tenant: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.tenant = tenant


class Denied(BrokerError):
    """``key``: the name of the API key, where it is known, for the audit trail."""

    def __init__(self, detail: str, *, tenant: str | None = None, key: str | None = None) -> None:
        super().__init__(detail, tenant=tenant)
        self.key = key


class Unauthenticated(Denied):
    pass


class Forbidden(Denied):
    pass


class InvalidRequest(BrokerError):
    pass


class Conflict(BrokerError):
    """There is something of that name already."""


class NotFound(BrokerError):
    pass


class UnknownTenant(BrokerError):
    def __init__(self, tenant: str) -> None:
        super().__init__(f"No tenant {tenant!r}; make it with a connect link.", tenant=tenant)


class NotConnected(BrokerError):
    def __init__(self, tenant: str) -> None:
        super().__init__(
            f"Tenant {tenant!r} is not connected to Ignition; an admin has to connect it.",
            tenant=tenant,
        )


class ReauthorizationRequired(BrokerError):
    def __init__(self, tenant: str, last_error: str | None = None) -> None:
        reason = f" ({last_error})" if last_error else ""
        super().__init__(
            f"The grant of tenant {tenant!r} has ended and can't be renewed{reason}; "
            "an admin has to connect it again.",
            tenant=tenant,
        )


class NotRenewable(BrokerError):
    """``ends_at``: when the token expires; None if that is not known."""

    def __init__(self, tenant: str, ends_at: datetime | None) -> None:
        until = (
            "has no known end" if ends_at is None else f"lives until {ends_at:%Y-%m-%d %H:%M:%S %Z}"
        )
        super().__init__(
            f"Ignition gave no refresh token for tenant {tenant!r}: its access token {until}, and "
            "can't be renewed. If it no longer works, an admin has to connect the tenant again.",
            tenant=tenant,
        )


class SignOnFailed(BrokerError):
    pass


class NotAnAdmin(BrokerError):
    pass


class ProviderFault(BrokerError):
    pass


class Retryable(BrokerError):
    """Worth trying again after ``retry_after_seconds``, which are at least one."""

    def __init__(
        self, detail: str, *, retry_after_seconds: float = 1.0, tenant: str | None = None
    ) -> None:
        super().__init__(detail, tenant=tenant)
        self.retry_after_seconds = max(1.0, retry_after_seconds)


class TooManyAttempts(Retryable):
    pass


class IdentityProviderUnavailable(Retryable):
    pass


class ProviderUnavailable(Retryable):
    pass


class NotYetAnswered(ProviderUnavailable):
    """The request to Ignition goes on, and its answer will be stored."""


class RenewedTooOften(ProviderUnavailable):
    pass


class Unavailable(Retryable):
    pass
