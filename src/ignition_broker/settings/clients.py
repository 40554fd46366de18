"""The OAuth clients: the default one of the plain settings, and those of ``IGNITION_CLIENTS``.

Of another client, what is not given is the plain settings', as for a second registration at the
same Ignition. A profile or an address says that it is another Ignition: then nothing is taken over,
so that no token of a sandbox goes to production.

Over 250 lines: what a client may set stands beside what it takes over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)

from ignition_broker.grant_ids import CLIENT_NAME_RULE, DEFAULT_CLIENT, is_client_name
from ignition_broker.oauth.answers import plain_code
from ignition_broker.settings.client_faults import ClientFaults
from ignition_broker.settings.database import DatabaseSettings, RotationSettings
from ignition_broker.settings.field_types import (
    NO_ALLOWANCE,
    CallAllowance,
    ErrorCodes,
    Pointer,
    ReturnOrigins,
    SafeUrl,
    parsed_allowance,
)
from ignition_broker.settings.normalization import normalized, trimmed
from ignition_broker.settings.profiles import Profile, profile_values

ClientAuth = Literal["client_secret_post", "client_secret_basic"]
TokenFormat = Literal["form", "json"]

EXAMPLE = (
    '{"sandbox": {"id": "my-sandbox-client", "secret_file": "/run/secrets/sandbox_secret", '
    '"profile": "ignitionapp"}}'
)
EXAMPLES: Mapping[str, str] = {
    "id": "my-sandbox-client",
    "secret_file": "/run/secrets/sandbox_secret",
    "previous_secret_file": "/run/secrets/sandbox_secret_previous",
    "profile": "ignitionapp",
    "authorize_url": "https://sandbox.example.com/oauth2/authorize",
    "token_url": "https://sandbox.example.com/oauth2/token",
    "revoke_url": "https://sandbox.example.com/oauth2/revoke",
    "api_url": "https://sandbox.example.com/api/v1",
    "issuer": "https://sandbox.example.com",
    "scopes": "reporting",
    "client_auth": "client_secret_post",
    "token_format": "form",
    "refusal_codes": "bad_refresh_token",
    "api_allowance": "1000/3600",
    "identity_url": "https://sandbox.example.com/api/v1/me",
    "identity_id": "/data/practice/id",
    "identity_name": "/data/practice/name",
}
"""What a line about a field of a client shows."""
_ADDRESSES = ("authorize_url", "token_url", "api_url")
_OTHER_IGNITION = (*_ADDRESSES, "revoke_url", "issuer")
_WAYS = ("scopes", "client_auth", "token_format", "api_allowance")
_IDENTITY = ("identity_url", "identity_id", "identity_name")


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What the broker needs of one OAuth client."""

    client_id: str
    secret: SecretStr
    authorize_url: str
    token_url: str
    revoke_url: str | None
    api_url: str
    issuer: str | None
    scopes: str
    client_auth: ClientAuth
    token_format: TokenFormat
    refusal_codes: frozenset[str] = field(default_factory=frozenset)
    previous_secret: SecretStr | None = None
    identity_url: str | None = None
    identity_id: str | None = None
    identity_name: str | None = None
    api_allowance: str = NO_ALLOWANCE

    @property
    def allowance(self) -> tuple[int, float] | None:
        """How many calls a tenant has in how many seconds; None: they are not counted."""
        return parsed_allowance(self.api_allowance)


def secret_in_file(path: str) -> SecretStr:
    """The secret that the file ``path`` holds, trimmed. Raises `ValueError`, without the path."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("its file must be UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no path"
        raise ValueError(f"its file can't be read ({reason})") from None
    secret = normalized("ignition_client_secret", trimmed(text))
    if not secret:
        raise ValueError("its file is empty")
    return SecretStr(secret)


class _Client(BaseModel):
    """One member of ``IGNITION_CLIENTS``. ``secret_file`` is read as it is checked."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: Annotated[str, Field(min_length=1)]
    secret_file: Annotated[str, Field(min_length=1)]
    previous_secret_file: Annotated[str, Field(min_length=1)] | None = None
    profile: Profile | None = None
    authorize_url: SafeUrl | None = None
    token_url: SafeUrl | None = None
    revoke_url: SafeUrl | None = None
    api_url: SafeUrl | None = None
    issuer: Annotated[str, Field(min_length=1)] | None = None
    scopes: str | None = None
    client_auth: ClientAuth | None = None
    token_format: TokenFormat | None = None
    refusal_codes: ErrorCodes | None = None
    api_allowance: CallAllowance | None = None
    identity_url: SafeUrl | None = None
    identity_id: Pointer | None = None
    identity_name: Pointer | None = None

    @field_validator("secret_file", "previous_secret_file")
    @classmethod
    def _is_a_secret(cls, path: str | None) -> str | None:
        if path is not None:
            secret_in_file(path)
        return path


def parse_clients(text: str) -> dict[str, dict[str, Any]]:
    """What ``IGNITION_CLIENTS`` gives of each client, by name and checked.

    Raises `ClientFaults`.
    """
    if not text:
        return {}
    try:
        clients = json.loads(text, object_pairs_hook=_without_repetition)
    except ValueError as error:
        reason = str(error) if isinstance(error, _Repeated) else "must be JSON"
        raise ClientFaults([f"{reason}; example: {EXAMPLE}"]) from None
    except RecursionError:
        raise ClientFaults([f"must be JSON; example: {EXAMPLE}"]) from None
    if not isinstance(clients, dict):
        raise ClientFaults([f"must be an object of clients by name; example: {EXAMPLE}"])
    lines: list[str] = []
    for name, given in clients.items():
        lines += _faults(name, given)
    if lines:
        raise ClientFaults(lines)
    return clients


def _checked(text: str) -> str:
    parse_clients(text)
    return text


IgnitionClients = Annotated[str, AfterValidator(_checked)]


class LinkSettings(DatabaseSettings):
    """What the command needs that makes connect links. The clients' secrets are checked with
    them."""

    ignition_clients: IgnitionClients = ""
    broker_return_origins: ReturnOrigins = ""

    @property
    def client_names(self) -> list[str]:
        return [DEFAULT_CLIENT, *parse_clients(self.ignition_clients)]


class ImportSettings(RotationSettings, LinkSettings):
    """What `tenants import` needs."""

    broker_refresh_lead: float = Field(300, ge=0)


def client_settings(given: Mapping[str, Any], default: ClientSettings) -> ClientSettings:
    """The settings of a client that `parse_clients` has checked, completed by its profile or by the
    default client's."""
    values: dict[str, Any] = {
        "scopes": "",
        "revoke_url": None,
        "issuer": None,
        "client_auth": "client_secret_post",
        "token_format": "form",
        "refusal_codes": "",
        "api_allowance": NO_ALLOWANCE,
        **dict.fromkeys(_IDENTITY),
    }
    if given.get("profile") is not None:
        values |= profile_values(given["profile"])
    elif not any(given.get(name) is not None for name in _OTHER_IGNITION):
        values |= {name: getattr(default, name) for name in (*_OTHER_IGNITION, *_WAYS)}
        if given.get("identity_url") is None:
            values |= {name: getattr(default, name) for name in _IDENTITY}
        values["refusal_codes"] = " ".join(sorted(default.refusal_codes))
    values |= {name: value for name, value in given.items() if value is not None}
    previous = given.get("previous_secret_file")
    return ClientSettings(
        client_id=values["id"],
        secret=secret_in_file(values["secret_file"]),
        previous_secret=None if previous is None else secret_in_file(previous),
        refusal_codes=frozenset(plain_code(code) for code in values["refusal_codes"].split()),
        **{name: values[name] for name in (*_OTHER_IGNITION, *_WAYS, *_IDENTITY)},
    )


def _faults(name: str, given: object) -> list[str]:
    """What is wrong with one client: a line for each field, which names neither value nor file."""
    if not is_client_name(name):
        return [f"a client's name must have {CLIENT_NAME_RULE}; example: {EXAMPLE}"]
    if name == DEFAULT_CLIENT:
        return [f"{name}: is the client of the plain settings; give this one another name"]
    try:
        _Client.model_validate(given)
    except ValidationError as error:
        return [_line(name, problem) for problem in error.errors()]
    assert isinstance(given, dict)  # noqa: S101  # the model has accepted it
    if (given.get("identity_url") is None) != (given.get("identity_id") is None):
        missing = "identity_url" if given.get("identity_url") is None else "identity_id"
        return [
            f"{name}.{missing}: is missing beside the other of identity_url and identity_id; "
            f'example: "{missing}": "{EXAMPLES[missing]}"'
        ]
    is_elsewhere = any(given.get(each) is not None for each in _OTHER_IGNITION)
    if given.get("profile") is not None or not is_elsewhere:
        return []
    return [
        f"{name}.{field}: is missing beside another address of this client; example: "
        f'"{field}": "{EXAMPLES[field]}"'
        for field in _ADDRESSES
        if given.get(field) is None
    ]


def _line(name: str, problem: Mapping[str, Any]) -> str:
    location = problem.get("loc")
    known = [str(step) for step in location if step in EXAMPLES] if location else []
    if not known:
        # The field's name is the operator's own text, which may be a secret in the wrong place.
        is_unknown = problem.get("type") == "extra_forbidden"
        fault = "has an unknown field" if is_unknown else "must be an object"
        return f"{name}: {fault}; its fields are {', '.join(EXAMPLES)}; example: {EXAMPLE}"
    reason = "is missing" if problem.get("type") == "missing" else str(problem.get("msg"))
    reason = reason.removeprefix("Value error, ")
    return f'{name}.{known[0]}: {reason}; example: "{known[0]}": "{EXAMPLES[known[0]]}"'


class _Repeated(ValueError):
    pass


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON's reader takes the last of several equal names in silence."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise _Repeated("names a client or a field twice")
    return dict(pairs)
