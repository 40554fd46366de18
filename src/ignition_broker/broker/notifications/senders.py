"""Sends events by the way that a destination's kind needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from ignition_broker.broker.notifications.destinations import Destination, Kind
from ignition_broker.broker.notifications.mail import MailSender
from ignition_broker.broker.notifications.messages import lines_of, subject_of
from ignition_broker.broker.notifications.sending import HttpSender, NotTaken, SendResult
from ignition_broker.storage.outbox import OutboxEvent


class Senders:
    """``mail``: None where no mail server is set. ``console_url``: where people can look."""

    def __init__(self, http: HttpSender, mail: MailSender | None, *, console_url: str) -> None:
        self._http = http
        self._mail = mail
        self._console_url = console_url

    async def send(self, destination: Destination, events: Sequence[OutboxEvent]) -> SendResult:
        """Webhooks get one event; people get all of them in one message."""
        match destination.kind:
            case Kind.WEBHOOK:
                [event] = events
                return await self._http.send_event(destination, event)
            case Kind.SLACK:
                lines = lines_of(events, self._console_url)
                return await self._http.send_text(destination, lines)
            case Kind.EMAIL:
                if self._mail is None:
                    return NotTaken(None, "BROKER_SMTP_URL is not set")
                return await self._mail.send(
                    destination.target,
                    subject_of(events),
                    lines_of(events, self._console_url),
                    message_id=events[0].name,
                )
            case _:
                assert_never(destination.kind)

    async def aclose(self) -> None:
        await self._http.aclose()
