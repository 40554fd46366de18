"""Where the pages behind a connect link may lead back to: a list of exact origins. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from ignition_broker.secure_urls import is_https_or_loopback

LONGEST_ADDRESS: Final = 2000

# As browsers write an origin: the comparison is by text alone, so that no two parsers can disagree
# about which host a URL names.
_ORIGIN = re.compile(
    r"https?://(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::[1-9]\d{0,4})?"
)
# RFC 3986 appendix A: what may stand behind the host.
_REST = re.compile(r"(?:[/?#][A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*)?")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class ReturnAddressRefused(ValueError):
    """The text says why and how to mend it; it follows the field's name."""


def parse_origins(text: str) -> tuple[str, ...]:
    """The origins of a list with commas between them. Raises `ValueError`."""
    origins = tuple(part for part in text.split(",") if part)
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(
                "must be origins, comma separated: scheme, host in lower case and port, with "
                "nothing behind them, no slash either, and no wildcard"
            )
        try:
            parts = urlsplit(origin)
            port = parts.port
        except ValueError:
            raise ValueError("must be origins, comma separated; one has no proper host") from None
        if not is_https_or_loopback(parts):
            raise ValueError("must be https, except for a loopback host")
        if port == _DEFAULT_PORTS[parts.scheme]:
            raise ValueError(f"must leave out :{port}, as browsers do: it is the scheme's own port")
    return origins


def origin_of(address: str, origins: Sequence[str]) -> str | None:
    """The one of ``origins`` that ``address`` is at; None if it is at none, or malformed."""
    for origin in origins:
        rest = address.removeprefix(origin)
        if rest != address and _REST.fullmatch(rest):
            return origin
    return None


def check_return_address(address: str, origins: Sequence[str]) -> str:
    """``address`` as it came, if it may be stored with a link.

    Raises `ReturnAddressRefused`.
    """
    if not origins:
        raise ReturnAddressRefused(
            "BROKER_RETURN_ORIGINS names no origin; name there where links may lead back to"
        )
    if len(address) > LONGEST_ADDRESS:
        raise ReturnAddressRefused(f"has more than {LONGEST_ADDRESS} characters; shorten it")
    if origin_of(address, origins) is None:
        raise ReturnAddressRefused(
            "must be a URL that begins with one of the origins in BROKER_RETURN_ORIGINS "
            f"({', '.join(origins)}), written the same way, with other characters than those of a "
            "URL percent-encoded; correct it, or add its origin to that setting"
        )
    return address
