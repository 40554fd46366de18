"""What a caller can be told; `web.errors` alone knows which status each one is.

BrokerError
├── Denied                      has the key's name, where it is known
│   ├── Unauthenticated         no key, or none that counts
│   └── Forbidden               the key does not cover it
├── TooManyAttempts             too many without a key that counts, from one address; has
│                               retry_after_seconds
├── InvalidRequest              something malformed, named in the text
├── UnknownTenant
├── NotConnected                never connected, or disconnected
├── ReauthorizationRequired     Ignition refused the refresh token for good, or the token ended
│                               and there was none
├── NotRenewable                the token's life can't be prolonged, since there is no refresh token
├── SignOnFailed                a single sign-on signed nobody in
├── NotAnAdmin                  it did, but somebody in no group of admins
├── IdentityProviderUnavailable what signs admins on can't be asked, or answers nonsense
├── ProviderFault               Ignition's answer is no token, or blames our client
├── ProviderUnavailable         Ignition is down or overloaded; has retry_after_seconds
│   ├── NotYetAnswered          it has not answered, and its answer will be stored when it comes
│   └── RenewedTooOften         callers forced too many early renewals of this tenant
└── Unavailable                 Postgres is away; has retry_after_seconds
"""

from __future__ import annotations

from datetime import datetime


class BrokerError(Exception):
    """``detail`` is for the caller to read; ``tenant`` where there is one."""

    def __init__(self, detail: str, *, tenant: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.tenant = tenant


class Denied(BrokerError):
    """``key``: the name of the API key, for the audit trail, where it is known."""

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
    """Something of that name is there already."""


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
    """``ends_at`` is None where the token has no known end."""

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
    """Worth trying again after ``retry_after_seconds``."""

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
    """The request goes on, and its answer will be stored."""


class RenewedTooOften(ProviderUnavailable):
    pass


class Unavailable(Retryable):
    pass
