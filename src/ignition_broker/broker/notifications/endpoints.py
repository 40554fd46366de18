"""Destinations that admins make: created, listed, deleted, their secrets replaced."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from ignition_broker.broker.errors import Conflict, InvalidRequest, NotFound
from ignition_broker.broker.notifications.bodies import EVENT_TYPES
from ignition_broker.broker.notifications.destinations import (
    Destination,
    Kind,
    parse_email,
    parse_url,
)
from ignition_broker.broker.notifications.signing import new_secret
from ignition_broker.cipher import Cipher, CipherError
from ignition_broker.model import Actor, AuditEvent
from ignition_broker.outbound.address_guard import AddressGuard, AddressRefused
from ignition_broker.storage import delivery_log, outbox, webhooks
from ignition_broker.storage.audit import audit_parameters
from ignition_broker.storage.database import Database
from ignition_broker.storage.delivery_log import DeliveryRow
from ignition_broker.storage.webhooks import NewWebhook, WebhookRow

MOST_DESTINATIONS: Final = 50
LONGEST_GRACE_SECONDS: Final = 30 * 86_400
DEFAULT_GRACE_SECONDS: Final = 86_400
_OPENED_AT_ONCE = 100
_FROM_SETTINGS = "It comes from the settings: change BROKER_WEBHOOK_URLS or BROKER_NOTIFY_EMAILS."


@dataclass(frozen=True, slots=True)
class Endpoints:
    """``guard``: what URLs may lead to. ``has_mail_server``: whether e-mail can be sent."""

    database: Database
    cipher: Cipher
    guard: AddressGuard
    has_mail_server: bool

    async def create(
        self,
        *,
        url: str | None,
        email: str | None,
        types: Sequence[str] | None,
        actor: Actor,
    ) -> tuple[WebhookRow, str | None]:
        """Stores a destination and an audit event.

        Args:
            url: of a webhook, or of Slack; None for an e-mail address.
            email: the address; None for a URL.
            types: of the events that it gets; None: of all.
            actor: who makes it.

        Returns:
            The destination, and the secret that signs what is sent to it (None for kinds that are
            not signed). It is shown this once.

        Raises:
            InvalidRequest: an argument is malformed or leads where nothing may be sent.
            Conflict: there are `MOST_DESTINATIONS` already.
        """
        destination = self._parsed(url, email)
        unknown = sorted(set(types or ()) - set(EVENT_TYPES))
        if unknown or types == []:
            raise InvalidRequest(f"types: some of {', '.join(EVENT_TYPES)}; leave out for all.")
        secret = new_secret() if destination.kind is Kind.WEBHOOK else None
        new = NewWebhook(
            id=f"wh_{secrets.token_hex(10)}",
            kind=destination.kind.value,
            target=destination.target,
            shown=destination.shown,
            secret=secret,
            types=None if types is None else tuple(dict.fromkeys(types)),
        )
        if await self.database.once(webhooks.count) >= MOST_DESTINATIONS:
            raise Conflict(f"There are {MOST_DESTINATIONS} destinations already; delete one.")
        event = _event("webhook_create", actor, webhook=new.id, kind=new.kind, url=new.shown)
        row = await self.database.single(
            partial(webhooks.create, cipher=self.cipher, new=new, audited=audit_parameters(event))
        )
        return row, secret

    async def every(self) -> Sequence[WebhookRow]:
        """All destinations, those of the settings too."""
        return await self.database.once(
            partial(webhooks.every, affirmed_within_seconds=outbox.AFFIRMED_FOR_SECONDS)
        )

    async def remove(self, webhook: str, actor: Actor) -> None:
        """Deletes a destination with its deliveries. Raises `NotFound`, or `Conflict` for one of
        the settings."""
        event = _event("webhook_delete", actor, webhook=webhook)
        if not await self.database.single(
            partial(webhooks.remove, webhook=webhook, audited=audit_parameters(event))
        ):
            await self._check_own(webhook)
            raise NotFound(f"No destination {webhook!r}.")

    async def replace_secret(
        self, webhook: str, *, grace_seconds: float, actor: Actor
    ) -> tuple[str, datetime]:
        """A new secret, and until when the one before signs beside it.

        Raises `NotFound`, or `Conflict` for a destination that has no secret of its own.
        """
        secret = new_secret()
        event = _event("webhook_secret_rotate", actor, webhook=webhook, grace=grace_seconds)
        until = await self.database.single(
            partial(
                webhooks.replace_secret,
                cipher=self.cipher,
                webhook=webhook,
                secret=secret,
                audited=audit_parameters(event),
                grace_seconds=grace_seconds,
            )
        )
        if until is None:
            await self._check_own(webhook)
            raise Conflict("It is not signed: only webhooks have a secret.")
        return secret, until

    async def deliveries(
        self, webhook: str, *, before: int | None, limit: int
    ) -> Sequence[DeliveryRow]:
        """What was sent to a destination, or waits, newest first. Raises `NotFound`."""
        await self._check_known(webhook)
        return await self.database.once(
            partial(delivery_log.newest, webhook=webhook, before=before, limit=limit)
        )

    async def resend(self, webhook: str, delivery: int, actor: Actor) -> None:
        """Sends an event again. One that waits is left alone. Raises `NotFound`."""
        await self._check_known(webhook)
        event = _event("webhook_resend", actor, webhook=webhook, delivery=delivery)
        is_changed = await self.database.single(
            partial(
                delivery_log.resend,
                webhook=webhook,
                delivery=delivery,
                audited=audit_parameters(event),
            )
        )
        if not is_changed and not await self.database.once(
            partial(delivery_log.exists, webhook=webhook, delivery=delivery)
        ):
            raise NotFound(f"No delivery {delivery} to {webhook!r}.")

    async def send_test(self, webhook: str) -> str:
        """Has a test event delivered to one destination; returns its name. Raises `NotFound`."""
        await self._check_known(webhook)
        return await self.database.single(partial(outbox.add_test, webhook=webhook))

    def _parsed(self, url: str | None, email: str | None) -> Destination:
        if (url is None) == (email is None):
            raise InvalidRequest("url, email: give one of the two.")
        if email is not None:
            return self._parsed_email(email)
        try:
            destination = parse_url(url or "")
        except ValueError as error:
            raise InvalidRequest(f"url: {error}.") from None
        parts = urlsplit(destination.target)
        host, is_tls = parts.hostname or "", parts.scheme == "https"
        if not is_tls and not self.guard.may_allow_plain(host):
            raise InvalidRequest(
                "url: must be https; BROKER_WEBHOOK_ALLOW can allow its host without."
            )
        try:
            self.guard.check_literal(host, is_tls=is_tls)
        except AddressRefused as error:
            raise InvalidRequest(f"url: {error}.") from None
        return destination

    def _parsed_email(self, email: str) -> Destination:
        if not self.has_mail_server:
            raise InvalidRequest("email: needs the setting BROKER_SMTP_URL.")
        try:
            return parse_email(email)
        except ValueError as error:
            raise InvalidRequest(f"email: {error}.") from None

    async def _check_known(self, webhook: str) -> WebhookRow:
        row = await self.database.once(partial(webhooks.find, webhook=webhook))
        if row is None:
            raise NotFound(f"No destination {webhook!r}.")
        return row

    async def _check_own(self, webhook: str) -> None:
        if (await self._check_known(webhook)).is_from_settings:
            raise Conflict(_FROM_SETTINGS)


async def with_stored_secrets(
    database: Database, cipher: Cipher, destination: Destination
) -> tuple[str, ...]:
    """The secrets in force of the stored destination that has this URL; none if there is none."""
    after = ""
    while rows := await database.once(partial(webhooks.sealed, after=after, limit=_OPENED_AT_ONCE)):
        for row in rows:
            try:
                opened = await database.once(
                    partial(webhooks.opened, cipher=cipher, webhook=row.id)
                )
            except CipherError:
                continue
            if opened is not None and opened.target == destination.target:
                return opened.secrets
        after = rows[-1].id
    return ()


def _event(action: str, actor: Actor, **detail: object) -> AuditEvent:
    return AuditEvent(action, "done", actor.name, None, actor.request_id, detail)
