"""Settings: the environment, a `.env` file, or one file a setting, parsed once."""

from ignition_broker.settings.clients import ClientSettings, ImportSettings, LinkSettings
from ignition_broker.settings.database import DatabaseSettings, RotationSettings
from ignition_broker.settings.field_types import fernet_keys
from ignition_broker.settings.loading import SettingsError, load_settings
from ignition_broker.settings.service import Settings

__all__ = [
    "ClientSettings",
    "DatabaseSettings",
    "ImportSettings",
    "LinkSettings",
    "RotationSettings",
    "Settings",
    "SettingsError",
    "fernet_keys",
    "load_settings",
]
