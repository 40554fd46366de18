"""Cross-site request forgery: forms are taken from our own pages alone."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from fastapi import Request

from ignition_broker.broker.errors import BrokerError
from ignition_broker.cipher import is_same_secret

_STALE = "It is too old, or was not sent by its own page; load that again."


class FormForged(BrokerError):
    """A form without its page's CSRF token, or one that another site's page sent."""


def for_browser(key: bytes, browser: str) -> str:
    """The CSRF token of forms that are shown before anybody has signed in.

    Args:
        key: one that is derived for forms.
        browser: the mark in the browser's cookie.
    """
    return hmac.new(key, browser.encode(), hashlib.sha256).hexdigest()


def check(request: Request, shown: str, expected: Sequence[str | bytes]) -> None:
    """Raises `FormForged` unless ``shown`` is one of the ``expected`` tokens and the form was not
    sent by another site's page."""
    check_site(request)
    if not any(is_same_secret(token, shown.encode()) for token in expected):
        raise FormForged(_STALE)


def check_site(request: Request) -> None:
    """Raises `FormForged` for a form that, as the browser says, another site's page sent.

    Only Sec-Fetch-Site can tell: under our Referrer-Policy browsers send `Origin: null` with every
    form.
    """
    if request.headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
        raise FormForged("This form was sent by a page of another site.")
