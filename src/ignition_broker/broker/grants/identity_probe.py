"""Asks Ignition's API whose account an access token is for, once after a code exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import httpx

from ignition_broker.clock import Clock
from ignition_broker.deadlines import result_within
from ignition_broker.json_pointer import JsonPointer, value_at
from ignition_broker.json_reading import read_json
from ignition_broker.model import Account
from ignition_broker.oauth.tokens import AccessToken
from ignition_broker.outbound.answers import Answer, whole_answer
from ignition_broker.outbound.client import ClientLimits, PoolTransport, http_client
from ignition_broker.outbound.egress import Egress
from ignition_broker.outbound.errors import ExchangeError
from ignition_broker.printable import printable

TIMEOUT_SECONDS: Final = 3.0
"""For one try, connecting included."""
PAUSES_SECONDS: Final = (0.5, 1.5)
"""Before each further try, where a failure may pass."""
LARGEST_ANSWER_BYTES: Final = 64 * 1024
LONGEST_ID: Final = 200
LONGEST_NAME: Final = 200
CONNECTIONS: Final = 20


@dataclass(frozen=True, slots=True)
class IdentityQuestion:
    """Where to ask with an access token whose it is, and where the answer says it.

    ``id_pointer``, ``name_pointer``: within the answer's JSON; no ``name_pointer``: no name.
    """

    url: str
    id_pointer: JsonPointer
    name_pointer: JsonPointer | None


@dataclass(frozen=True, slots=True)
class Identified:
    """``warning``: why the account has no name although one was asked for; None: it has."""

    account: Account
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Unidentified:
    """``reason`` says how to mend it. ``may_pass``: another try may succeed."""

    reason: str
    may_pass: bool = False


class Probe(Protocol):
    async def ask(self, token: AccessToken) -> Identified | Unidentified:
        """Whose account ``token`` is for."""
        ...


class IdentityProbe:
    """Its connections are its own: what answers slowly here must not be what renews grants."""

    def __init__(
        self,
        question: IdentityQuestion,
        clock: Clock,
        egress: Egress | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._question = question
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        limits = ClientLimits(connections=CONNECTIONS, connect_timeout_seconds=timeout_seconds)
        # Not closed: each request has a connection of its own, and closes it.
        self._http = http_client(PoolTransport(limits, egress=egress, server="Ignition's API"))

    async def ask(self, token: AccessToken) -> Identified | Unidentified:
        """Whose account ``token`` is for. A failure that may pass is tried three times, for 11 s
        at most."""
        for pause in PAUSES_SECONDS:
            found = await self._try(token)
            if isinstance(found, Identified) or not found.may_pass:
                return found
            await self._clock.sleep(pause)
        return await self._try(token)

    async def _try(self, token: AccessToken) -> Identified | Unidentified:
        request = self._http.build_request(
            "GET",
            self._question.url,
            headers={"Accept": "application/json", "Authorization": f"Bearer {token.reveal()}"},
        )
        asking = whole_answer(self._http, request, limit_bytes=LARGEST_ANSWER_BYTES)
        try:
            answer = await result_within(asking, self._timeout_seconds)
        except ExchangeError as error:
            return Unidentified(f"IGNITION_IDENTITY_URL: {error.detail}", may_pass=True)
        except (TimeoutError, httpx.HTTPError):
            seconds = f"{self._timeout_seconds:g} s"
            return Unidentified(
                f"IGNITION_IDENTITY_URL gave no answer within {seconds}", may_pass=True
            )
        return judge_identity(answer, self._question, token)


def judge_identity(
    answer: Answer, question: IdentityQuestion, token: AccessToken
) -> Identified | Unidentified:
    """What an answer says of whose ``token`` is."""
    status = answer.status
    if status in {401, 403}:
        return Unidentified(
            f"IGNITION_IDENTITY_URL answered {status}: check whether it needs a scope that "
            "IGNITION_SCOPES lacks"
        )
    if status == 429 or status >= 500:
        return Unidentified(f"IGNITION_IDENTITY_URL answered {status}", may_pass=True)
    if not 200 <= status < 300:
        return Unidentified(f"IGNITION_IDENTITY_URL answered {status}: check the address")
    if answer.broke_off is not None:
        return Unidentified("the answer of IGNITION_IDENTITY_URL broke off", may_pass=True)
    if answer.flaw is not None:
        return Unidentified(f"the answer of IGNITION_IDENTITY_URL can't be used: {answer.flaw}")
    try:
        document = read_json(answer.body)
    except ValueError:
        return Unidentified("the answer of IGNITION_IDENTITY_URL is no JSON: check the address")
    try:
        account_id = _text_of(value_at(document, question.id_pointer), token)
    except (LookupError, ValueError) as error:
        return Unidentified(f"IGNITION_IDENTITY_ID does not lead to an id: {_reason(error)}")
    if len(account_id) > LONGEST_ID or not account_id.isprintable():
        # Not cut or cleaned: two accounts must not come to have one id.
        return Unidentified(
            f"IGNITION_IDENTITY_ID leads to more than {LONGEST_ID} characters, or to some that "
            "can't be printed"
        )
    name, warning = _name_in(document, question, token)
    return Identified(Account(account_id, name), warning)


def _name_in(
    document: object, question: IdentityQuestion, token: AccessToken
) -> tuple[str | None, str | None]:
    """The name, and why there is none although one was asked for."""
    if question.name_pointer is None:
        return None, None
    try:
        text = _text_of(value_at(document, question.name_pointer), token)
    except (LookupError, ValueError) as error:
        return None, f"IGNITION_IDENTITY_NAME does not lead to a name: {_reason(error)}"
    name = printable(text, LONGEST_NAME).strip()
    if not name:
        return None, "IGNITION_IDENTITY_NAME leads to nothing that can be printed"
    return name, None


def _text_of(value: object, token: AccessToken) -> str:
    """A text, or a whole number as text. Raises `ValueError`."""
    # True is an int to Python.
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError("it leads to no text and no whole number")
    if token.reveal() in value:
        # It is stored and shown in clear.
        raise ValueError("it leads to the access token")
    return value


def _reason(error: Exception) -> str:
    return str(error.args[0]) if error.args else type(error).__name__
