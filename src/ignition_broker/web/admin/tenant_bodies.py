"""What admin routes for tenants take and answer."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ignition_broker.model import GrantStatus
from ignition_broker.storage.tenants import Description
from ignition_broker.tenant_labels import KEY_PATTERN, LONGEST_NAME, LONGEST_VALUE, MOST_LABELS


class TenantDescription(BaseModel):
    """What is left out stays as it is. Checked by `tenant_labels`, which says how to mend it."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str | None,
        Field(
            description="For people to read. null: none.",
            json_schema_extra={"minLength": 1, "maxLength": LONGEST_NAME},
        ),
    ] = None
    labels: Annotated[
        dict[str, str] | None,
        Field(
            description="All labels of the tenant from now on. null: none.",
            examples=[{"tier": "gold", "region": "au"}],
            json_schema_extra={
                "maxProperties": MOST_LABELS,
                "propertyNames": {"pattern": f"^{KEY_PATTERN}$"},
                "additionalProperties": {"type": "string", "maxLength": LONGEST_VALUE},
            },
        ),
    ] = None

    def description(self) -> Description:
        return Description(
            sets_name="name" in self.model_fields_set,
            name=self.name,
            sets_labels="labels" in self.model_fields_set,
            labels=self.labels,
        )


class Account(BaseModel):
    id: str
    name: str | None


class PendingAccount(Account):
    expires_at: datetime


class ConfirmedAccount(BaseModel):
    model_config = ConfigDict(extra="forbid")

    account_id: Annotated[str, Field(description="The id of the tenant's `pending_account`.")]


class Tenant(BaseModel):
    """``account``: whose data the grant reaches at Ignition; null where that is not known.
    ``account_shared_with``: other tenants that are connected to the same account.
    ``pending_account``: another account that a reconnect brought, until an admin confirms it."""

    tenant: str
    client: str
    status: GrantStatus
    scope: str | None
    expires_at: datetime | None
    connected_at: datetime | None
    refreshed_at: datetime | None
    last_error: str | None
    renewable: bool
    refresh_token_expires_at: datetime | None
    name: str | None
    labels: dict[str, str]
    account: Account | None
    account_shared_with: list[str]
    pending_account: PendingAccount | None


class KeyUse(BaseModel):
    """``used``: calls that the API key made in the window."""

    model_config = ConfigDict(from_attributes=True)

    key: str
    used: int
    weight: int
    reserve: int


class Allowance(BaseModel):
    """The tenant's calls at Ignition in this window, as replicas reported them some seconds ago.

    ``used``: by keys of the broker; ``used_elsewhere``: by others, as far as Ignition tells.
    """

    calls: int
    seconds: float
    used: int
    used_elsewhere: int
    remaining: int
    resets_in: float
    keys: list[KeyUse]


class ShownTenant(Tenant):
    """``allowance``: null where calls are not counted (IGNITION_API_ALLOWANCE)."""

    allowance: Allowance | None


class TenantPage(BaseModel):
    tenants: list[Tenant]
    next_cursor: str | None
