"""An issuer's metadata and keys, as it publishes them (OpenID Connect Discovery 1.0)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import httpx

from ignition_broker.deadlines import result_within
from ignition_broker.json_reading import read_json
from ignition_broker.outbound.answers import whole_answer
from ignition_broker.outbound.errors import ExchangeError
from ignition_broker.secure_urls import is_https_or_loopback

LARGEST_DOCUMENT_BYTES: Final = 256 * 1024


class FetchFailed(Exception):
    """Says in a sentence why a document is not to be had."""


class MetadataRefused(FetchFailed):
    """The metadata can't be trusted, or lack what is needed."""


class OtherIssuer(MetadataRefused):
    """They are those of another issuer."""


def metadata_url(issuer: str) -> str:
    """Section 4.1."""
    return issuer.rstrip("/") + "/.well-known/openid-configuration"


def endpoints_of(metadata: object, issuer: str, names: Sequence[str]) -> dict[str, str]:
    """The URLs of those ``names`` (section 3). Raises `MetadataRefused`.

    Section 4.3: the metadata must name ``issuer`` to the letter.
    """
    if not isinstance(metadata, Mapping) or not all(
        isinstance(metadata.get(name), str) for name in names
    ):
        raise MetadataRefused("its metadata lack what OpenID Connect Discovery asks for")
    if metadata.get("issuer") != issuer:
        raise OtherIssuer("its metadata name another issuer")
    endpoints = {name: str(metadata[name]) for name in names}
    if not all(is_safe_url(url) for url in endpoints.values()):
        raise MetadataRefused("an endpoint in its metadata is not https")
    return endpoints


def parsed_metadata(document: bytes) -> object:
    """The JSON in ``document``; None where there is none, which `endpoints_of` refuses."""
    try:
        return read_json(document)
    except ValueError:
        return None


def jwks_url_of(metadata: object, issuer: str) -> str:
    """Raises `MetadataRefused`."""
    return endpoints_of(metadata, issuer, ["jwks_uri"])["jwks_uri"]


def is_safe_url(url: str) -> bool:
    """https, or http on this machine; nothing in it that could be mistaken."""
    try:
        parts = urlsplit(url)
        _port = parts.port
    except ValueError:
        return False
    is_secure = is_https_or_loopback(parts)
    return bool(is_secure and parts.hostname and not parts.fragment and not parts.username)


async def fetch(
    http: httpx.AsyncClient,
    url: str,
    *,
    timeout_seconds: float,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """The document at ``url``, not redirected. Raises `FetchFailed`."""
    try:
        request = http.build_request(
            "GET", url, headers={"Accept": "application/json", **(headers or {})}
        )
    except httpx.InvalidURL:
        raise FetchFailed("The address of a document is malformed.") from None
    try:
        answer = await result_within(
            whole_answer(http, request, limit_bytes=LARGEST_DOCUMENT_BYTES), timeout_seconds
        )
    except ExchangeError as error:
        raise FetchFailed(error.detail) from error
    except TimeoutError:
        raise FetchFailed(f"{_place(url)} gave no answer within {timeout_seconds:g} s.") from None
    if answer.status != 200:
        raise FetchFailed(f"{_place(url)} answered {answer.status}.")
    if answer.broke_off is not None:
        raise FetchFailed(answer.broke_off.detail)
    if answer.flaw is not None:
        raise FetchFailed(f"The answer of {_place(url)} can't be used: {answer.flaw}.")
    return answer.body


def origin_of(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _place(url: str) -> str:
    """Without its query, which may hold anything."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
