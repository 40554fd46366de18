"""One row of an import file: its fields, checked. Pure. No message quotes a value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from ignition_broker.grant_ids import CLIENT_NAME_RULE, DEFAULT_CLIENT, grant_id, is_client_name
from ignition_broker.model import TENANT_ID_RULE, is_tenant_id
from ignition_broker.oauth.fields import is_header_safe
from ignition_broker.oauth.tokens import AccessToken, RefreshToken
from ignition_broker.tenant_labels import LabelRefused, check_labels, check_name, parse_labels

COLUMNS: Final = (
    "tenant",
    "refresh_token",
    "access_token",
    "expires_at",
    "scope",
    "labels",
    "name",
    "client",
)
LONGEST_TOKEN: Final = 16_384
LONGEST_SCOPE: Final = 10_000
_MILLISECONDS: Final = 100_000_000_000
_PLACEHOLDERS: Final = frozenset({"null", "none", "nil", "undefined"})


class RowRefused(ValueError):
    """Says which field is wrong and how to mend it."""


@dataclass(frozen=True, slots=True)
class ImportRow:
    """``line``: where it begins in the file, from 1. An empty token is one that is not there.
    ``expires_at``: of the access token; None: not known."""

    line: int
    grant: str
    refresh_token: RefreshToken
    access_token: AccessToken
    expires_at: datetime | None
    scope: str
    name: str | None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_renewable(self) -> bool:
        return bool(self.refresh_token.reveal())


def checked_row(line: int, fields: Mapping[str, object], *, now: datetime) -> ImportRow:
    """The row whose fields a file gives under the names of `COLUMNS`; "" and None: not given.

    Raises `RowRefused`.
    """
    tenant, client = _text(fields, "tenant"), _text(fields, "client") or DEFAULT_CLIENT
    if not is_tenant_id(tenant):
        raise RowRefused(f"tenant: must have {TENANT_ID_RULE}")
    if not is_client_name(client):
        raise RowRefused(f"client: must have {CLIENT_NAME_RULE}")
    refresh_token = _token(fields, "refresh_token")
    access_token = _token(fields, "access_token")
    expires_at = _moment(fields.get("expires_at"))
    if not refresh_token and not access_token:
        raise RowRefused("refresh_token: is missing, and there is no access_token either")
    if not refresh_token and expires_at is not None and expires_at <= now:
        raise RowRefused("refresh_token: is missing, and the access token has expired")
    if refresh_token and refresh_token == access_token:
        raise RowRefused("refresh_token: is the same as access_token; give each its own column")
    name = _text(fields, "name") or None
    try:
        if name is not None:
            check_name(name)
        labels = _labels(fields.get("labels"))
    except LabelRefused as error:
        raise RowRefused(str(error)) from None
    return ImportRow(
        line,
        grant_id(tenant, client),
        RefreshToken(refresh_token),
        AccessToken(access_token),
        expires_at,
        _scope(fields.get("scope")),
        name,
        labels,
    )


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowRefused(f"{name}: must be a text")
    return value


def _token(fields: Mapping[str, object], name: str) -> str:
    text = _text(fields, name)
    if not text:
        return ""
    if len(text) > LONGEST_TOKEN:
        raise RowRefused(f"{name}: must have at most {LONGEST_TOKEN} characters")
    if not is_header_safe(text):
        raise RowRefused(f"{name}: has blanks or other characters that no token has")
    if text.casefold() in _PLACEHOLDERS:
        raise RowRefused(f"{name}: is a word for nothing; leave the field empty")
    return text


def _moment(value: object) -> datetime | None:
    if value is None or value == "":
        return None
    rule = "expires_at: must be a time with its offset, such as 2026-01-31T12:00:00Z, or Unix time"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowRefused(rule)
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            raise RowRefused(rule) from None
        if moment.tzinfo is None:
            raise RowRefused(f"{rule}; this one has no offset") from None
        return moment
    if seconds >= _MILLISECONDS:
        raise RowRefused("expires_at: looks like milliseconds; give Unix time in seconds")
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise RowRefused(rule) from None


def _scope(value: object) -> str:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = " ".join(value)
    if value is None:
        return ""
    if not isinstance(value, str) or not value.isprintable() or len(value) > LONGEST_SCOPE:
        raise RowRefused("scope: must be printable text, parted by blanks")
    return value


def _labels(value: object) -> dict[str, str]:
    """An object; in a CSV file its JSON, or ``key=value`` parted by ``;``."""
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        if not value.lstrip().startswith("{"):
            parts = [part.strip() for part in value.split(";") if part.strip()]
            return parse_labels(parts, "labels")
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RowRefused("labels: are no JSON; write key=value;key=value") from None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise RowRefused("labels: must be texts by their keys")
    return check_labels(value)
