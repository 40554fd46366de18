"""Destinations of notifications: webhooks, Slack channels, e-mail addresses.

Those made by the API have their URL and secrets here, encrypted, since a URL may hold a password.
Those of the settings have neither: the row only counts their deliveries, and is affirmed by every
replica that has them.

Over 250 lines: half of them are statements and rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import text

from ignition_broker.cipher import Cipher
from ignition_broker.storage.connection import Connection, Row

TARGET: Final = "webhook_target"
SECRET: Final = "webhook_secret"
"""The names of the columns for `Cipher`, which binds a ciphertext to column and id. A secret that
was replaced keeps the name, since it moves from column to column."""
FORGOTTEN_AFTER_SECONDS: Final = 7 * 86_400.0

AFFIRM = text("""
    INSERT INTO webhooks (id, kind, shown, created_by, affirmed_at)
    SELECT id, kind, shown, 'settings', now() FROM unnest(
        CAST(:ids AS text[]), CAST(:kinds AS text[]), CAST(:shown AS text[])
    ) AS given(id, kind, shown)
    ORDER BY id
    ON CONFLICT (id) DO UPDATE SET affirmed_at = now(), shown = excluded.shown
""")

CREATE = text("""
    WITH changed AS (
        INSERT INTO webhooks (id, kind, target, shown, secret, types, created_by)
        VALUES (:id, :kind, :target, :shown, :secret, :types, :actor)
        RETURNING *
    ), audited AS (
        INSERT INTO audit_events (tenant_id, actor, action, outcome, request_id, detail)
        SELECT CAST(:tenant AS text), :actor, :action, :outcome, :request_id,
            CAST(:detail AS jsonb) FROM changed
    )
    SELECT *, 0 AS waiting FROM changed
""")

COUNT = text("SELECT count(*) AS number FROM webhooks WHERE affirmed_at IS NULL")

# Its deliveries go with it.
REMOVE = text("""
    WITH changed AS (
        DELETE FROM webhooks WHERE id = :id AND affirmed_at IS NULL RETURNING id
    ), audited AS (
        INSERT INTO audit_events (tenant_id, actor, action, outcome, request_id, detail)
        SELECT CAST(:tenant AS text), :actor, :action, :outcome, :request_id,
            CAST(:detail AS jsonb) FROM changed
    )
    SELECT id FROM changed
""")

REPLACE_SECRET = text("""
    WITH changed AS (
        UPDATE webhooks SET secret = :secret, previous_secret = secret,
            previous_until = now() + make_interval(secs => :grace)
        WHERE id = :id AND affirmed_at IS NULL AND kind = 'webhook'
        RETURNING id, previous_until
    ), audited AS (
        INSERT INTO audit_events (tenant_id, actor, action, outcome, request_id, detail)
        SELECT CAST(:tenant AS text), :actor, :action, :outcome, :request_id,
            CAST(:detail AS jsonb) FROM changed
    )
    SELECT previous_until FROM changed
""")

LIST = text("""
    SELECT webhooks.*, (
        SELECT count(*) FROM webhook_deliveries AS delivery
        WHERE delivery.webhook_id = webhooks.id AND delivery.state = 'waiting') AS waiting
    FROM webhooks
    WHERE affirmed_at IS NULL OR affirmed_at > now() - make_interval(secs => :affirmed)
    ORDER BY created_at, id
""")

FIND = text("SELECT *, 0 AS waiting FROM webhooks WHERE id = :id")

OPEN = text("""
    SELECT id, kind, target, secret,
        CASE WHEN previous_until > now() THEN previous_secret END AS previous_secret
    FROM webhooks WHERE id = :id
""")

FORGET_UNAFFIRMED = text("""
    DELETE FROM webhooks WHERE id IN (
        SELECT id FROM webhooks
        WHERE affirmed_at < now() - make_interval(secs => :seconds) FOR UPDATE SKIP LOCKED
    ) RETURNING id
""")

SEALED = text("""
    SELECT id, target, secret, previous_secret FROM webhooks
    WHERE affirmed_at IS NULL AND id > :after ORDER BY id LIMIT :limit
""")

# Only what has not been changed since it was read: a rotation of the secret wins.
REPLACE_SEALED = text("""
    UPDATE webhooks SET target = :target, secret = :secret, previous_secret = :previous_secret
    WHERE id = :id AND target = :before_target AND secret IS NOT DISTINCT FROM :before_secret
      AND previous_secret IS NOT DISTINCT FROM :before_previous_secret
""")


@dataclass(frozen=True, slots=True)
class WebhookRow:
    """A destination as an admin sees it.

    Attributes:
        kind: ``webhook``, ``slack`` or ``email``.
        shown: its address, without what may be secret in it.
        types: of the events that it gets; None: of all.
        waiting: how many deliveries to it wait.
    """

    id: str
    kind: str
    shown: str
    types: tuple[str, ...] | None
    created_at: datetime
    created_by: str
    is_from_settings: bool
    previous_until: datetime | None
    waiting: int


@dataclass(frozen=True, slots=True)
class OpenedWebhook:
    """Where a destination of the API leads. ``secrets``: each signs; the newest comes first."""

    kind: str
    target: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SealedWebhook:
    """The ciphertexts of a destination."""

    id: str
    target: bytes = field(repr=False)
    secret: bytes | None = field(repr=False)
    previous_secret: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """A destination to be stored; ``secret`` None: of a kind that has none."""

    id: str
    kind: str
    target: str = field(repr=False)
    shown: str
    secret: str | None = field(repr=False)
    types: tuple[str, ...] | None


async def affirm(connection: Connection, rows: Sequence[tuple[str, str, str]]) -> None:
    """Notes that the settings of this replica hold these destinations: id, kind, what is shown."""
    parameters = {
        "ids": [identifier for identifier, _kind, _shown in rows],
        "kinds": [kind for _id, kind, _shown in rows],
        "shown": [shown for _id, _kind, shown in rows],
    }
    await connection.execute(AFFIRM, parameters)


async def create(
    connection: Connection, cipher: Cipher, new: NewWebhook, audited: dict[str, object]
) -> WebhookRow:
    """Stores a destination, and the audit event of `audit_parameters`."""
    parameters = {
        "id": new.id,
        "kind": new.kind,
        "target": cipher.encrypt(new.id, TARGET, new.target),
        "shown": new.shown,
        "secret": None if new.secret is None else cipher.encrypt(new.id, SECRET, new.secret),
        "types": None if new.types is None else list(new.types),
        **audited,
    }
    return _row((await connection.execute(CREATE, parameters)).one())


async def count(connection: Connection) -> int:
    """How many destinations were made by the API."""
    return int((await connection.execute(COUNT)).scalar_one())


async def remove(connection: Connection, webhook: str, audited: dict[str, object]) -> bool:
    """Deletes a destination of the API with its deliveries; False if there is none."""
    row = (await connection.execute(REMOVE, {"id": webhook, **audited})).one_or_none()
    return row is not None


async def replace_secret(
    connection: Connection,
    cipher: Cipher,
    webhook: str,
    secret: str,
    audited: dict[str, object],
    *,
    grace_seconds: float,
) -> datetime | None:
    """Stores a new secret; until when the one before signs too. None: no such webhook."""
    parameters = {
        "id": webhook,
        "secret": cipher.encrypt(webhook, SECRET, secret),
        "grace": grace_seconds,
        **audited,
    }
    row = (await connection.execute(REPLACE_SECRET, parameters)).one_or_none()
    return None if row is None else row.previous_until


async def every(connection: Connection, *, affirmed_within_seconds: float) -> Sequence[WebhookRow]:
    """All destinations, but those that have left the settings."""
    rows = await connection.execute(LIST, {"affirmed": affirmed_within_seconds})
    return [_row(row) for row in rows]


async def find(connection: Connection, webhook: str) -> WebhookRow | None:
    row = (await connection.execute(FIND, {"id": webhook})).one_or_none()
    return None if row is None else _row(row)


async def opened(connection: Connection, cipher: Cipher, webhook: str) -> OpenedWebhook | None:
    """A destination of the API, decrypted; None if it is gone or has no URL here.

    Raises `CipherError` if no key decrypts it.
    """
    row = (await connection.execute(OPEN, {"id": webhook})).one_or_none()
    if row is None or row.target is None:
        return None
    sealed = [each for each in (row.secret, row.previous_secret) if each is not None]
    return OpenedWebhook(
        row.kind,
        cipher.decrypt(webhook, TARGET, row.target),
        tuple(cipher.decrypt(webhook, SECRET, each) for each in sealed),
    )


async def forget_unaffirmed(connection: Connection) -> None:
    """Deletes destinations that no replica has had in its settings for long."""
    await connection.execute(FORGET_UNAFFIRMED, {"seconds": FORGOTTEN_AFTER_SECONDS})


async def sealed(connection: Connection, *, after: str, limit: int) -> list[SealedWebhook]:
    """At most ``limit`` rows of ciphertexts that follow the id ``after``, for `keys rotate`."""
    rows = await connection.execute(SEALED, {"after": after, "limit": limit})
    return [SealedWebhook(row.id, row.target, row.secret, row.previous_secret) for row in rows]


async def replace_sealed(
    connection: Connection, before: SealedWebhook, fresh: SealedWebhook
) -> None:
    """Stores the same values encrypted anew. The row may have changed or gone by now."""
    parameters = {
        "id": before.id,
        "target": fresh.target,
        "secret": fresh.secret,
        "previous_secret": fresh.previous_secret,
        "before_target": before.target,
        "before_secret": before.secret,
        "before_previous_secret": before.previous_secret,
    }
    await connection.execute(REPLACE_SEALED, parameters)


def _row(row: Row) -> WebhookRow:
    return WebhookRow(
        id=row.id,
        kind=row.kind,
        shown=row.shown,
        types=None if row.types is None else tuple(row.types),
        created_at=row.created_at,
        created_by=row.created_by,
        is_from_settings=row.affirmed_at is not None,
        previous_until=row.previous_until,
        waiting=row.waiting,
    )
