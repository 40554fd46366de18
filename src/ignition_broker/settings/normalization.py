"""Normalizes the values of settings, which come from files, shells and clipboards.

A value that can mean only one thing is corrected: `echo secret | base64` leaves a newline at the
end, an editor a byte order mark at the beginning, `docker run --env-file` the quotes around it. A
value that can mean two things is refused by the setting's name, so that a wrong secret never
reaches Ignition or Postgres.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

_QUOTES = ("'", '"')
_SEPARATORS = re.compile(r"[,\s]+")
# Quotes may be part of these: somebody made them up.
_MAY_HOLD_QUOTES = frozenset(
    {
        "ignition_client_id",
        "ignition_client_secret",
        "ignition_client_secret_previous",
        "broker_admin_key",
        "broker_oidc_client_id",
        "broker_oidc_client_secret",
        "broker_oidc_admin_groups",
        "broker_oidc_groups_claim",
    }
)
_COMMA_SEPARATED = frozenset(
    {
        "broker_encryption_keys",
        "broker_trusted_proxies",
        "no_proxy",
        "broker_webhook_urls",
        "broker_webhook_secret",
        "broker_webhook_allow",
        "broker_notify_emails",
        "broker_return_origins",
    }
)
_SPACE_SEPARATED = frozenset({"ignition_scopes", "ignition_refusal_codes", "broker_oidc_scopes"})
_MULTILINE = frozenset({"broker_jwt_issuers", "ignition_clients"})
_WITHOUT_SPACES = frozenset(
    {
        "database_url",
        "broker_admin_key",
        "broker_host",
        "broker_operations_host",
        "ignition_issuer",
        "broker_oidc_issuer",
        "https_proxy",
        "http_proxy",
        "broker_smtp_url",
    }
)


class TrimmedSource(PydanticBaseSettingsSource):
    """The values of ``source``, trimmed; a value of blanks alone counts as unset."""

    def __init__(self, source: PydanticBaseSettingsSource) -> None:
        super().__init__(source.settings_cls)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        values = {
            name: trimmed(value) if isinstance(value, str) else value
            for name, value in self._source().items()
        }
        return {name: value for name, value in values.items() if value != ""}


class LowerCaseFirst(PydanticBaseSettingsSource):
    """Variables ``names`` in lower case. They take precedence over upper case, as in urllib and
    curl; pydantic-settings alone would take whichever it reads last."""

    def __init__(self, settings_cls: type[BaseSettings], names: tuple[str, ...]) -> None:
        super().__init__(settings_cls)
        self._names = tuple(name for name in names if name in settings_cls.model_fields)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return os.environ.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return {name: os.environ[name] for name in self._names if os.environ.get(name)}


def normalized(name: str, text: str) -> str:
    """The value ``text`` of the setting ``name`` (in lower case), corrected.

    Raises `ValueError` if it can mean two things, or holds characters that the setting can't.
    """
    if name not in _MAY_HOLD_QUOTES:
        text = unquoted(text)
    elif _is_quoted(text):
        raise ValueError("is in quotes; leave them out")
    if name in _COMMA_SEPARATED:
        return ",".join(part for part in _SEPARATORS.split(text) if part)
    if name in _SPACE_SEPARATED:
        return " ".join(text.split())
    if name in _WITHOUT_SPACES:
        check_one_word(text)
    elif name not in _MULTILINE:
        _check_visible(text)
    return text


def trimmed(text: str) -> str:
    """Without blanks, line breaks and invisible characters at either end."""
    visible = [place for place, character in enumerate(text) if not _is_invisible(character)]
    return text[visible[0] : visible[-1] + 1] if visible else ""


def unquoted(text: str) -> str:
    """Without one pair of quotes around it."""
    return trimmed(text[1:-1]) if _is_quoted(text) else text


def check_one_word(text: str) -> None:
    """Raises `ValueError` for blanks, line breaks and invisible characters."""
    _check_visible(text)
    if " " in text:
        raise ValueError("must not hold a blank")


def unreadable(names: Iterable[str], folder: Path | None) -> list[str]:
    """A line for each file of a setting, or `.env`, that can't be read as text. ``names`` are in
    lower case."""
    files = {".env": Path(".env")}
    if folder is not None:
        try:
            found = {path.name.lower(): path for path in folder.iterdir()}
        except OSError as error:
            return [f"BROKER_SECRETS_DIR: can't be read ({error.strerror}); example: chmod 500"]
        files |= {name.upper(): found[name] for name in names if name in found}
    lines = []
    for name, path in files.items():
        try:
            if path.is_file():
                path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError:
            lines.append(f"{name}: its file must be UTF-8 text; example: iconv -t utf-8")
        except OSError as error:
            lines.append(f"{name}: its file can't be read ({error.strerror}); example: chmod 400")
    return lines


def _is_quoted(text: str) -> bool:
    return (
        len(text) > 1 and text[0] in _QUOTES and text[-1] == text[0] and text[0] not in text[1:-1]
    )


def _check_visible(text: str) -> None:
    """Raises `ValueError` for a line break or an invisible character inside ``text``.

    A plain blank is allowed: it may be part of a secret (RFC 6749 appendix A.2).
    """
    if any(unicodedata.category(character) == "Cs" for character in text):
        # Python decodes bytes of the environment that are not UTF-8 to surrogates.
        raise ValueError("must be UTF-8 text")
    if any(_is_invisible(character) and character != " " for character in text):
        raise ValueError("must not hold a line break, a tab or an invisible character")


def _is_invisible(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in {"Cc", "Cf"}
