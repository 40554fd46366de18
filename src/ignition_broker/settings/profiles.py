"""What ``IGNITION_PROFILE`` sets in one word: the addresses and ways of one known Ignition.

Where the facts come from, and how old they are: docs/ignition.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from ignition_broker.settings.normalization import trimmed, unquoted

Profile = Literal["guide", "ignitionapp"]

GUIDE = {
    "ignition_authorize_url": "https://ignition.com/oauth/authorize",
    "ignition_token_url": "https://ignition.com/oauth/token",
    "ignition_api_url": "https://api.ignition.com",
}
"""The addresses of the reference guide, which are the settings' defaults."""

_SERVER = "https://developers.ignitionapp.com"
_BY_PROFILE: Mapping[str, Mapping[str, str]] = {
    "guide": {},
    "ignitionapp": {
        "ignition_authorize_url": f"{_SERVER}/oauth2/authorize",
        "ignition_token_url": f"{_SERVER}/oauth2/token",
        "ignition_revoke_url": f"{_SERVER}/oauth2/revoke",
        "ignition_api_url": f"{_SERVER}/external/api/v1",
        "ignition_scopes": "reporting",
        "ignition_client_auth": "client_secret_post",
        "ignition_api_allowance": "1000/3600",
    },
}

_SCOPES_IN_WORDS = {
    "reporting": "Read-only reports of the whole practice: clients, contacts, services, proposals, "
    "invoices, payments, collections and deals (reporting)"
}


def with_profile(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` of the settings by name, in lower case, over those that their profile sets.

    A profile that is unknown sets nothing: it is refused when the settings are checked.
    """
    named = values.get("ignition_profile", "guide")
    profile = unquoted(trimmed(named)) if isinstance(named, str) else ""
    return {**_BY_PROFILE.get(profile, {}), **values}


def profile_values(profile: Profile) -> dict[str, str]:
    """What the profile sets, by the names of a client's fields: those of the settings without
    ``ignition_``."""
    values = {**GUIDE, **_BY_PROFILE[profile]}
    return {name.removeprefix("ignition_"): value for name, value in values.items()}


def scopes_in_words(api_url: str, scopes: str) -> tuple[str, ...]:
    """What each of the ``scopes`` (with blanks between them) shares, for people to read; as it is
    where that is not known."""
    is_known = urlsplit(api_url).hostname == urlsplit(_SERVER).hostname
    words = _SCOPES_IN_WORDS if is_known else {}
    return tuple(words.get(scope, scope) for scope in scopes.split())


def placeholders(values: Mapping[str, str]) -> list[str]:
    """Which of the addresses in ``values`` lead to a host of the guide's, where nobody answers.

    ``values`` by the settings' names in lower case; the answer has them in upper case.
    """
    return [
        name.upper()
        for name, address in GUIDE.items()
        if urlsplit(values[name]).hostname == urlsplit(address).hostname
    ]
