"""What the commands of `tenants` take, and its checks."""

from __future__ import annotations

from typing import Annotated

import typer

from ignition_broker.grant_ids import CLIENT_NAME_RULE, is_client_name
from ignition_broker.model import TENANT_ID_RULE, is_tenant_id
from ignition_broker.storage.tenants import Description
from ignition_broker.tenant_labels import LabelRefused, parse_labels


def _tenant_id(text: str) -> str:
    if not is_tenant_id(text):
        raise typer.BadParameter(f"a tenant id has {TENANT_ID_RULE}")
    return text


def _client_name(text: str) -> str:
    if not is_client_name(text):
        raise typer.BadParameter(f"a client's name has {CLIENT_NAME_RULE}")
    return text


def checked_labels(texts: list[str] | None) -> list[str] | None:
    try:
        parse_labels(texts or [], "--label")
    except LabelRefused as error:
        raise typer.BadParameter(str(error)) from None
    return texts


TenantId = Annotated[str, typer.Argument(callback=_tenant_id)]
Client = Annotated[
    str,
    typer.Option(callback=_client_name, help="The OAuth client, by its name in IGNITION_CLIENTS."),
]
Name = Annotated[str | None, typer.Option(help="For people to read.", show_default=False)]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        callback=checked_labels,
        metavar="KEY=VALUE",
        help="May be given more than once; replaces all labels of the tenant.",
        show_default=False,
    ),
]


def description(
    name: str | None,
    labels: list[str] | None,
    *,
    sets_name: bool = False,
    sets_labels: bool = False,
) -> Description:
    """What is given, and what is cleared by ``sets_name`` or ``sets_labels`` alone."""
    return Description(
        sets_name=sets_name or name is not None,
        name=name,
        sets_labels=sets_labels or bool(labels),
        labels=parse_labels(labels or [], "--label"),
    )
