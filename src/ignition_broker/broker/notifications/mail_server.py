"""Which mail server sends the e-mail, as `BROKER_SMTP_URL` says it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from ignition_broker.broker.notifications.destinations import parse_email
from ignition_broker.secure_urls import LOOPBACK_HOSTS


@dataclass(frozen=True, slots=True)
class MailServer:
    """``is_tls_from_the_start``: else STARTTLS is asked for, and required unless the server is on
    this machine. ``sender``: the address in ``From``; None: one at this service's host."""

    host: str
    port: int
    is_tls_from_the_start: bool
    sender: str | None
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def may_be_plain(self) -> bool:
        return self.host in LOOPBACK_HOSTS


def parse_mail_server(text: str) -> MailServer:
    """Reads ``smtp://user:password@host:587?from=broker@example.com``, or ``smtps://``.

    Raises `ValueError`, whose text does not repeat the URL.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("must be a URL such as smtp://user:password@mail.example.com") from None
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
        raise ValueError("must begin with smtp:// or smtps:// and name a host")
    if parts.path not in {"", "/"} or parts.fragment:
        raise ValueError(
            "must have nothing behind its host but ?from=; percent-encode the password"
        )
    query = parse_qs(parts.query, keep_blank_values=True)
    if query.keys() - {"from"} or len(query.get("from", [])) > 1:
        raise ValueError("must have no other parameter than from")
    if (parts.username is None) != (parts.password is None):
        raise ValueError("must have a user and a password, or neither")
    sender = query["from"][0] if "from" in query else None
    if sender is not None:
        parse_email(sender)
    is_tls = parts.scheme == "smtps"
    return MailServer(
        host=parts.hostname,
        port=port or (465 if is_tls else 587),
        is_tls_from_the_start=is_tls,
        sender=sender,
        username=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
    )
