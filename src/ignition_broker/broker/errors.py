"""What callers can be told. `web.errors` alone knows the status and the code of each error.

BrokerError
├── Denied                            has the name of the API key, where it is known
│   ├── Unauthenticated               no key, or none that is valid
│   │   └── SessionEnded              (web.browser_sessions) an admin's session has ended
│   └── Forbidden                     the key does not cover the call
├── InvalidRequest                    something is malformed; the text says what
│   ├── PathRefused                   (proxy.paths) a path that is not passed on
│   └── PagingRefused                 (proxy.paging.asked) a call that can't have all pages
├── FormForged                        (web.csrf) a form without its token
├── BodyTooLarge                      (web.errors)
├── BodyTooSlow                       (web.errors)
├── NotFound
├── Conflict                          the name is taken
├── UnknownTenant
├── UnknownClient                     no OAuth client of that name is set
├── NotConnected                      never connected, or disconnected
├── ReauthorizationRequired           Ignition refused the refresh token for good, or the token
│                                     expired and there was no refresh token
├── AccountMismatch                   a reconnect brought another account at Ignition
├── NotRenewable                      there is no refresh token, so the token can't be renewed
├── ConnectFailed                     (grants.connect_outcomes) a callback connected nothing
├── StillConnecting                   (grants.connect_outcomes) it may still connect
├── LinkForged                        (grants.connect_links) no such link was ever made
├── LinkSpent                         (grants.connect_links) used, revoked or expired
├── SignOnFailed                      a single sign-on signed nobody in
├── NotAnAdmin                        a single sign-on of somebody in no group of admins
├── PageRefused                       (proxy.paging.errors) the API refused a page
├── PageUnreadable                    (proxy.paging.errors) it is too large, or leads nowhere
├── ProviderFault                     Ignition's answer is no token, or blames our client
└── Retryable                         worth trying again; has retry_after_seconds
    ├── AllowanceSpent                no call is left to the key in this window
    ├── TooManyAttempts               too many calls without a valid key from one address
    ├── IdentityProviderUnavailable   the identity provider is down, or its answers make no sense
    ├── ProviderUnavailable           Ignition is down or overloaded
    │   ├── NotYetAnswered            it has not answered; its answer will be stored when it comes
    │   └── RenewedTooOften           callers forced too many early renewals of this tenant
    └── Unavailable                   Postgres is away
"""

from __future__ import annotations

from datetime import datetime

from ignition_broker.grant_ids import quoted
from ignition_broker.model import Account


class BrokerError(Exception):
    """``detail`` is for the caller to read; ``tenant``: the grant that was asked for, if any."""

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
        super().__init__(f"No tenant {quoted(tenant)}; make it with a connect link.", tenant=tenant)


class UnknownClient(BrokerError):
    def __init__(self, client: str, *, tenant: str | None = None) -> None:
        super().__init__(
            f"No OAuth client {client[:64]!r} is set here; IGNITION_CLIENTS names them.",
            tenant=tenant,
        )


class NotConnected(BrokerError):
    def __init__(self, tenant: str) -> None:
        super().__init__(
            f"Tenant {quoted(tenant)} is not connected to Ignition; an admin has to connect it.",
            tenant=tenant,
        )


class ReauthorizationRequired(BrokerError):
    def __init__(self, tenant: str, last_error: str | None = None) -> None:
        reason = f" ({last_error})" if last_error else ""
        super().__init__(
            f"The grant of tenant {quoted(tenant)} has ended and can't be renewed{reason}; "
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
            f"Ignition gave no refresh token for tenant {quoted(tenant)}: its access token "
            f"{until}, and can't be renewed. If it no longer works, an admin has to connect the "
            "tenant again.",
            tenant=tenant,
        )


class AccountMismatch(BrokerError):
    """``account``: the other one, whose grant is held until an admin confirms it."""

    def __init__(self, tenant: str, account: Account, next_step: str = "") -> None:
        shown = account.id if account.name is None else f"{account.name} ({account.id})"
        super().__init__(
            f"Ignition says that this sign-in is for the account {shown}, and tenant "
            f"{quoted(tenant)} was connected to another one. "
            f"{next_step or 'An admin has to confirm it; until then nothing changes.'}",
            tenant=tenant,
        )
        self.account = account


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


class AllowanceSpent(Retryable):
    """``reset_seconds``: until the tenant's window ends; the key may get a call earlier."""

    def __init__(
        self, detail: str, *, tenant: str, retry_after_seconds: float, reset_seconds: int
    ) -> None:
        super().__init__(detail, tenant=tenant, retry_after_seconds=retry_after_seconds)
        self.reset_seconds = reset_seconds


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
