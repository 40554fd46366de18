"""What the console shows of the settings."""

from __future__ import annotations

from typing import Final

from pydantic import SecretStr

from ignition_broker.settings import Settings
from ignition_broker.web.services import ShownSetting

# Plain text that may hold a password or a secret all the same.
_MAY_HOLD_A_SECRET: Final = frozenset(
    {"https_proxy", "http_proxy", "ignition_clients", "broker_jwt_issuers"}
)


def shown_settings(settings: Settings) -> tuple[ShownSetting, ...]:
    """All settings by name, secrets masked."""
    return tuple(_shown(settings, name) for name in sorted(type(settings).model_fields))


def _shown(settings: Settings, name: str) -> ShownSetting:
    value = getattr(settings, name)
    is_set = name in settings.model_fields_set
    if value is None or value == "":
        return ShownSetting(name.upper(), "", is_set=is_set, is_secret=False)
    if isinstance(value, SecretStr) or name in _MAY_HOLD_A_SECRET:
        return ShownSetting(name.upper(), "set, and not shown", is_set=is_set, is_secret=True)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return ShownSetting(name.upper(), text, is_set=is_set, is_secret=False)
