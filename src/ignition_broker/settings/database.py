"""What the commands need that work at the database alone."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from pydantic import SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ignition_broker.settings.field_types import DatabaseUrl, FernetKeys, RedirectUri
from ignition_broker.settings.normalization import LowerCaseFirst, TrimmedSource, normalized


class DatabaseSettings(BaseSettings):
    """What the commands need that work at the database alone.

    Field names are the settings' names in lower case; an empty value is an unset one.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        # With or without the mark that some editors write at the beginning.
        env_file_encoding="utf-8-sig",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    database_url: DatabaseUrl
    redirect_uri: RedirectUri = "http://localhost:3000/callback"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        proxies = LowerCaseFirst(settings_cls, ("https_proxy", "http_proxy", "no_proxy"))
        sources = map(TrimmedSource, (proxies, env_settings, dotenv_settings, file_secret_settings))
        return init_settings, *sources

    @field_validator("*", mode="before")
    @classmethod
    def _is_normalized(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, str) and info.field_name is not None:
            return normalized(info.field_name, value)
        return value

    def secrets(self) -> list[str]:
        """In clear: for the log, which masks them. Of ``database_url`` the password alone."""
        fields = (getattr(self, name) for name in type(self).model_fields)
        values = [field.get_secret_value() for field in fields if isinstance(field, SecretStr)]
        password = urlsplit(self.database_url.get_secret_value()).password
        each = [*values, *(key for value in values for key in value.split(","))]
        return [*each, *([password, unquote(password)] if password else [])]

    @property
    def is_https(self) -> bool:
        """Whether browsers reach this service by https."""
        return self.redirect_uri.startswith("https:")

    @property
    def public_origin(self) -> str:
        """Where browsers reach this service, read off the redirect URI."""
        parts = urlsplit(self.redirect_uri)
        return f"{parts.scheme}://{parts.netloc}"


class RotationSettings(DatabaseSettings):
    """What a change of keys needs."""

    broker_encryption_keys: FernetKeys
