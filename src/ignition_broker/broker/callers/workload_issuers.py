"""Whose JWTs are believed, and what they entitle to: `BROKER_JWT_ISSUERS`, parsed. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from ignition_broker.broker.callers.entitlements import check_entitlements
from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.jwks.discovery import is_safe_url
from ignition_broker.model import Scope
from ignition_broker.wildcards import matches_wildcards

DEFAULT_LONGEST_LIFETIME_SECONDS: Final = 86_400


class MalformedIssuers(ValueError):
    """Says where and what is wrong, and never a value."""


def _check_url(url: str) -> str:
    if not is_safe_url(url):
        raise ValueError("must be an https URL, or http on loopback")
    return url


def _check_file(path: str) -> str:
    if not Path(path).is_file():
        raise ValueError("no such file")
    return path


Url = Annotated[str, AfterValidator(_check_url)]
File = Annotated[str, AfterValidator(_check_file)]
_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class WorkloadRule(BaseModel):
    """What a workload may do whose claims ``match``.

    A string matches itself, with ``*`` for any characters and ``?`` for any one; a list, any of
    its members; an object, the claims inside of an object. Of a claim that is a list, one member
    must match.
    """

    model_config = _STRICT

    match: Annotated[dict[str, JsonValue], Field(min_length=1)]
    scopes: list[str]
    tenants: list[str] = []
    paths: list[str] | None = None

    @model_validator(mode="after")
    def _is_sound(self) -> WorkloadRule:
        try:
            check_entitlements(self.scopes, self.tenants, self.paths)
        except InvalidRequest as error:
            raise ValueError(error.detail) from None
        if not _can_match(self.match):
            raise ValueError(
                "match: strings, numbers, true or false, and lists and objects of them"
            )
        return self

    @property
    def granted(self) -> frozenset[Scope]:
        return frozenset(Scope(scope) for scope in self.scopes)

    def matches(self, claims: Mapping[str, Any]) -> bool:
        return _matches(self.match, claims)


class TrustedIssuer(BaseModel):
    """``name`` tells its callers from those of other issuers in the audit trail."""

    model_config = _STRICT

    issuer: Url
    audience: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,62}$")] = ""
    jwks_url: Url | None = None
    ca_file: File | None = None
    token_file: File | None = None
    longest_lifetime_seconds: Annotated[int, Field(ge=60)] = DEFAULT_LONGEST_LIFETIME_SECONDS
    rules: Annotated[list[WorkloadRule], Field(min_length=1)]

    @property
    def label(self) -> str:
        return self.name or urlsplit(self.issuer).netloc

    def rule_for(self, claims: Mapping[str, Any]) -> WorkloadRule | None:
        """The first that matches: rules don't add up, since a union of scopes and one of tenants
        would allow more than any of them says."""
        return next((rule for rule in self.rules if rule.matches(claims)), None)

    def hash_of(self, rule: WorkloadRule) -> bytes:
        """What tells a rule of this issuer from all others, and from what it said before."""
        return hashlib.sha256(f"{self.issuer} {rule.model_dump_json()}".encode()).digest()

    def admin_rules(self) -> list[bytes]:
        """The hashes of the rules that make workloads admins."""
        return [self.hash_of(rule) for rule in self.rules if Scope.ADMIN in rule.granted]


_ISSUERS = TypeAdapter(list[TrustedIssuer])


def parse_issuers(text: str) -> Sequence[TrustedIssuer]:
    """A JSON list; empty: nobody is trusted. Raises `MalformedIssuers`."""
    if not text.strip():
        return ()
    try:
        issuers = _ISSUERS.validate_json(text)
    except ValidationError as error:
        raise MalformedIssuers(_told(error)) from None
    if len({issuer.issuer for issuer in issuers}) < len(issuers):
        raise MalformedIssuers("an issuer is named twice; join their rules")
    if len({issuer.label for issuer in issuers}) < len(issuers):
        raise MalformedIssuers("two issuers are called alike; give each a 'name'")
    return issuers


def _told(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(step + 1 if isinstance(step, int) else step) for step in problem["loc"])
    reason = problem["msg"].removeprefix("Value error, ")
    return f"item {place}: {reason}" if place else f"must be a JSON list of issuers ({reason})"


def _can_match(expected: JsonValue) -> bool:
    if isinstance(expected, dict):
        return bool(expected) and all(_can_match(value) for value in expected.values())
    if isinstance(expected, list):
        return bool(expected) and all(_can_match(value) for value in expected)
    return isinstance(expected, str | bool | int)


def _matches(expected: JsonValue, actual: object) -> bool:
    if isinstance(expected, list):
        return any(_matches(value, actual) for value in expected)
    if isinstance(actual, list):
        return any(_matches(expected, member) for member in actual if not isinstance(member, list))
    if isinstance(expected, dict):
        return isinstance(actual, Mapping) and all(
            name in actual and _matches(value, actual[name]) for name, value in expected.items()
        )
    if isinstance(expected, str):
        return isinstance(actual, str) and matches_wildcards(expected, actual)
    # In Python True equals 1.
    return type(expected) is type(actual) and expected == actual
