"""E-mail by SMTP (RFC 5321)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final

import aiosmtplib

from ignition_broker.broker.notifications.mail_server import MailServer
from ignition_broker.broker.notifications.sending import NotTaken, SendResult, Taken
from ignition_broker.clock import Clock
from ignition_broker.outbound.egress import Egress
from ignition_broker.system_errors import shortage_or_name

TIMEOUT_SECONDS: Final = 30.0
"""For the whole exchange: less than a lease."""


class MailSender:
    """``host``: this service's, for the ids of its messages, and its address where the settings
    name none."""

    def __init__(self, server: MailServer, egress: Egress, clock: Clock, *, host: str) -> None:
        self._server = server
        self._egress = egress
        self._clock = clock
        self._host = host

    async def send(
        self, address: str, subject: str, lines: Sequence[str], *, message_id: str
    ) -> SendResult:
        """One message to one address. ``message_id``: the same at each try."""
        server = self._server
        message = EmailMessage()
        message["From"] = server.sender or f"ignition-broker@{self._host}"
        message["To"] = address
        message["Subject"] = f"[ignition-broker] {subject}"
        message["Date"] = format_datetime(self._clock.now())
        message["Message-ID"] = f"<{message_id}@{self._host}>"
        # Out-of-office answers to a machine help nobody (RFC 3834 section 5).
        message["Auto-Submitted"] = "auto-generated"
        message.set_content("\n".join(lines) + "\n")
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await aiosmtplib.send(
                    message,
                    hostname=server.host,
                    port=server.port,
                    username=server.username,
                    password=server.password,
                    use_tls=server.is_tls_from_the_start,
                    start_tls=self._start_tls(),
                    tls_context=self._egress.tls(),
                    timeout=TIMEOUT_SECONDS,
                )
        except TimeoutError:
            return NotTaken(None, f"the mail server took longer than {TIMEOUT_SECONDS:g} s")
        except aiosmtplib.SMTPRecipientsRefused:
            return NotTaken(None, "the mail server refuses the recipient")
        except aiosmtplib.SMTPResponseException as error:
            return NotTaken(error.code, f"the mail server answered {error.code}")
        except aiosmtplib.SMTPException as error:
            return NotTaken(None, f"the mail server can't be used ({type(error).__name__})")
        except (OSError, ssl.SSLError) as error:
            return NotTaken(None, f"the mail server can't be reached ({shortage_or_name(error)})")
        return Taken(250)

    def _start_tls(self) -> bool | None:
        """None: if the server offers it."""
        server = self._server
        if server.is_tls_from_the_start:
            return False
        return None if server.may_be_plain else True
