"""The stored audit trail: verified, exported, and pruned at the end of its retention."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from ignition_broker.model import ChainLink, RecordedEvent
from ignition_broker.storage import audit, audit_chain
from ignition_broker.storage.audit_chain import CHAINS, Chain, ChainedEvent
from ignition_broker.storage.database import Database

PAGE_SIZE = 5000
PRUNED_AT_ONCE = 1000
MOST_PRUNED = 20_000
"""In one call of `prune`; the next one goes on."""
SECONDS_A_DAY = 86_400.0
BEFORE_ALL = (-(2**31), 0)
"""Chain and position to read from. Chains count from 1, but an event that was moved to a made-up
chain must be read too."""


@dataclass(slots=True)
class Verdict:
    """What `verify` found.

    Attributes:
        events: how many chained events were read.
        unchained: events from releases that had no chains; nothing proves them.
        findings: a line for each thing that is wrong; none: the trail is intact.
    """

    events: int = 0
    unchained: int = 0
    findings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _ChainCheck:
    """One chain's events are read in order: the last one's position, hash and id, and those of the
    kept heads that were not reached yet."""

    chain: Chain
    position: int
    hash: bytes
    kept: dict[int, str]
    last_id: int | None = None


async def verify(database: Database, kept_heads: Sequence[ChainLink] = ()) -> Verdict:
    """Reads every event, in one snapshot, and checks its hash and its place in its chain.

    ``kept_heads`` are what `heads` returned earlier; the trail must still contain them. Raises the
    errors of `storage.errors`.
    """
    verdict = Verdict()
    async with database.snapshot() as connection:
        chains = {chain.chain: chain for chain in await audit_chain.read_chains(connection)}
        for number in sorted(set(range(1, CHAINS + 1)) - chains.keys()):
            verdict.findings.append(f"chain {number}: is missing")
        checks = {number: _begin(chain, kept_heads) for number, chain in chains.items()}
        at = BEFORE_ALL
        while True:
            events = await audit_chain.events_after(
                connection, chain=at[0], position=at[1], limit=PAGE_SIZE
            )
            for event in events:
                _check_event(checks, event, verdict)
            if len(events) < PAGE_SIZE:
                break
            at = (events[-1].chain, events[-1].position)
        for check in checks.values():
            _check_end(check, verdict)
        unchained = await audit_chain.count_unchained(connection)
    verdict.unchained = unchained.number - unchained.late
    if unchained.late:
        verdict.findings.append(f"recent events in no chain: {unchained.late}")
    return verdict


def _begin(chain: Chain, kept_heads: Sequence[ChainLink]) -> _ChainCheck:
    kept = {head.position: head.hash for head in kept_heads if head.chain == chain.chain}
    return _ChainCheck(chain, chain.pruned_position, chain.pruned_hash, kept)


def _check_event(checks: Mapping[int, _ChainCheck], event: ChainedEvent, verdict: Verdict) -> None:
    verdict.events += 1
    check = checks.get(event.chain)
    if check is None:
        verdict.findings.append(
            f"event {event.id}: is in chain {event.chain}, which does not exist"
        )
        return
    if event.position <= check.position:
        verdict.findings.append(
            f"event {event.id} (chain {event.chain}, position {event.position}): stands before its "
            "chain's beginning"
        )
        return
    if event.position > check.position + 1:
        verdict.findings.append(
            f"chain {event.chain}: {_missing(check.position, event.position)} between "
            f"{_last(check)} and event {event.id}"
        )
    elif hashlib.sha256(check.hash + event.fields).digest() != event.hash:
        verdict.findings.append(
            f"event {event.id} (chain {event.chain}, position {event.position}): was changed, or "
            f"does not follow {_last(check)}"
        )
    check.position, check.hash, check.last_id = event.position, event.hash, event.id
    kept = check.kept.pop(event.position, None)
    if kept is not None and kept != event.hash.hex():
        verdict.findings.append(
            f"event {event.id} (chain {event.chain}, position {event.position}): is not the event "
            "that the kept head names"
        )


def _check_end(check: _ChainCheck, verdict: Verdict) -> None:
    chain = check.chain
    head = chain.head_position
    if head is None:
        if check.position:
            verdict.findings.append(f"chain {chain.chain}: its head is missing")
    elif head > check.position:
        verdict.findings.append(
            f"chain {chain.chain}: {_missing(check.position, head + 1)} at its end, after "
            f"{_last(check)}"
        )
    elif head < check.position or chain.head_hash != check.hash:
        verdict.findings.append(
            f"chain {chain.chain}: {_last(check)} is not the one that its head names"
        )
    for position in sorted(check.kept):
        if position > chain.pruned_position:
            verdict.findings.append(
                f"chain {chain.chain}: the kept head at position {position} is missing"
            )


def _missing(after: int, before: int) -> str:
    number = before - after - 1
    return "1 event is missing" if number == 1 else f"{number} events are missing"


def _last(check: _ChainCheck) -> str:
    return "its beginning" if check.last_id is None else f"event {check.last_id}"


async def heads(database: Database) -> list[ChainLink]:
    """The newest event of each chain that has any.

    Kept where nobody who can write to the database can write, they reveal even a trail that was
    forged together with its hashes. Raises the errors of `storage.errors`.
    """
    async with database.snapshot() as connection:
        chains = await audit_chain.read_chains(connection)
    return [
        ChainLink(chain.chain, chain.head_position, chain.head_hash.hex())
        for chain in chains
        if chain.head_position is not None and chain.head_hash is not None
    ]


async def export(
    database: Database, *, since: datetime, until: datetime | None
) -> AsyncIterator[RecordedEvent]:
    """Yields the events from ``since`` until before ``until``, oldest first, read page by page.

    Raises the errors of `storage.errors`.
    """
    last: RecordedEvent | None = None
    while True:
        page = await database.once(
            partial(audit.oldest, since=since, until=until, after=last, limit=PAGE_SIZE)
        )
        for event in page:
            yield event
        if len(page) < PAGE_SIZE:
            return
        last = page[-1]


async def prune(database: Database, retention_days: float) -> int:
    """Deletes events older than ``retention_days``, some `MOST_PRUNED` at most.

    Returns how many were deleted. Raises the errors of `storage.errors`.
    """
    number = 0
    for statement in (audit_chain.prune, audit_chain.prune_unchained):
        while number < MOST_PRUNED:
            deleted = await database.single(
                partial(
                    statement,
                    older_than_seconds=retention_days * SECONDS_A_DAY,
                    limit=PRUNED_AT_ONCE,
                )
            )
            number += deleted
            if not deleted:
                break
    return number
