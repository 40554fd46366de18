"""Where notifications go: what a URL must be, what of it is shown, and those of the settings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

SLACK_PREFIX: Final = "slack+"
_SLACK_HOST = "hooks.slack.com"
_LONGEST_URL = 2000
# RFC 3986 section 2: none of these stands in a URL; nor do blanks.
_NO_URL = re.compile(r'[\s"<>\\^`{|}\x00-\x1f\x7f]')
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")


class Kind(StrEnum):
    """``WEBHOOK``: signed JSON, an event each. ``SLACK`` and ``EMAIL``: sentences for people, many
    events in one message."""

    WEBHOOK = "webhook"
    SLACK = "slack"
    EMAIL = "email"


@dataclass(frozen=True, slots=True)
class Destination:
    """``target``: a URL or an e-mail address. ``secrets``: each signs; those of webhooks alone."""

    kind: Kind
    target: str = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def shown(self) -> str:
        """The target without what may be secret: a query, and the path of a Slack URL."""
        if self.kind is Kind.EMAIL:
            return self.target
        parts = urlsplit(self.target)
        origin = f"{parts.scheme}://{parts.netloc}"
        if self.kind is Kind.SLACK:
            return f"{origin}/…"
        return f"{origin}{parts.path}{'?…' if parts.query else ''}"


def parse_url(text: str) -> Destination:
    """A webhook's URL, or Slack's: one of hooks.slack.com, or any behind ``slack+``.

    Raises `ValueError`, whose text does not repeat the URL.
    """
    kind = Kind.WEBHOOK
    if text.lower().startswith(SLACK_PREFIX):
        kind, text = Kind.SLACK, text[len(SLACK_PREFIX) :]
    if len(text) > _LONGEST_URL:
        raise ValueError(f"must have at most {_LONGEST_URL} characters")
    try:
        text.encode("ascii")
        parts = urlsplit(text)
        _port = parts.port
    except ValueError:
        raise ValueError("must be an absolute https URL, in ASCII") from None
    if parts.scheme not in {"https", "http"} or not parts.hostname or _NO_URL.search(text):
        raise ValueError("must be an absolute https URL")
    if parts.username is not None or parts.password is not None or "#" in text:
        raise ValueError("must have neither credentials nor a fragment")
    _check_sendable(text)
    if parts.hostname == _SLACK_HOST:
        kind = Kind.SLACK
    return Destination(kind, text)


def _check_sendable(url: str) -> None:
    """Raises `ValueError` for what the client would not send to, such as ``http://0177.0.0.1/``."""
    # Imported here, since a command that has no such URL starts faster without it.
    import httpx

    try:
        httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError("must be a URL with a proper host") from None


def parse_email(text: str) -> Destination:
    """An e-mail address. Raises `ValueError`."""
    if len(text) > 254 or not _ADDRESS.fullmatch(text):
        raise ValueError("must be an e-mail address such as admins@example.com")
    return Destination(Kind.EMAIL, text)


@dataclass(frozen=True, slots=True)
class SettingsDestinations:
    """The destinations of this replica's settings, by id."""

    by_id: Mapping[str, Destination] = field(default_factory=dict)

    @classmethod
    def of(
        cls, urls: Sequence[str], secrets: Sequence[str], emails: Sequence[str]
    ) -> SettingsDestinations:
        """``urls`` and ``emails`` as `parse_url` and `parse_email` take them. ``secrets``: with
        which webhooks are signed."""
        found = {}
        for url in urls:
            parsed = parse_url(url)
            signs = tuple(secrets) if parsed.kind is Kind.WEBHOOK else ()
            found[_settings_id(parsed)] = Destination(parsed.kind, parsed.target, signs)
        for email in emails:
            found[_settings_id(parse_email(email))] = parse_email(email)
        return cls(found)

    def rows(self) -> list[tuple[str, str, str]]:
        """Of each its id, kind and what is shown, for `storage.webhooks.affirm`."""
        return [(each, at.kind.value, at.shown) for each, at in self.by_id.items()]


def _settings_id(destination: Destination) -> str:
    """The same on all replicas. A URL that holds a secret is too long to be guessed from it."""
    digest = hashlib.sha256(f"{destination.kind} {destination.target}".encode()).hexdigest()
    return f"settings_{digest[:20]}"
