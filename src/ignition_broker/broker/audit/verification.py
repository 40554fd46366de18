"""The audit trail as a whole: verified, exported, kept for as long as it is wanted."""

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
"""In one round of housekeeping; what is left is for the next."""
SECONDS_A_DAY = 86_400.0
BEFORE_ALL = (-(2**31), 0)
"""Chain and position: an event that was moved to a chain that never was is read too."""


@dataclass(slots=True)
class Verdict:
    """``findings``: a line each; ``unchained``: events from before there were chains."""

    events: int = 0
    unchained: int = 0
    findings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Walk:
    """Along one chain: what the last event was, and which kept heads are yet to be met."""

    chain: Chain
    position: int
    hash: bytes
    kept: dict[int, str]
    last_id: int | None = None


async def verify(database: Database, kept_heads: Sequence[ChainLink] = ()) -> Verdict:
    """Reads every event of one snapshot. ``kept_heads``: what `heads` said earlier."""
    verdict = Verdict()
    async with database.snapshot() as connection:
        chains = {chain.chain: chain for chain in await audit_chain.read_chains(connection)}
        for number in sorted(set(range(1, CHAINS + 1)) - chains.keys()):
            verdict.findings.append(f"chain {number}: it is not there any more")
        walks = {number: _begun(chain, kept_heads) for number, chain in chains.items()}
        at = BEFORE_ALL
        while True:
            events = await audit_chain.events_after(
                connection, chain=at[0], position=at[1], limit=PAGE_SIZE
            )
            for event in events:
                _step(walks, event, verdict)
            if len(events) < PAGE_SIZE:
                break
            at = (events[-1].chain, events[-1].position)
        for walk in walks.values():
            _end(walk, verdict)
        unchained = await audit_chain.count_unchained(connection)
    verdict.unchained = unchained.number - unchained.late
    if unchained.late:
        verdict.findings.append(f"{unchained.late} events: in no chain, though they are not old")
    return verdict


def _begun(chain: Chain, kept_heads: Sequence[ChainLink]) -> _Walk:
    kept = {head.position: head.hash for head in kept_heads if head.chain == chain.chain}
    return _Walk(chain, chain.pruned_position, chain.pruned_hash, kept)


def _step(walks: Mapping[int, _Walk], event: ChainedEvent, verdict: Verdict) -> None:
    verdict.events += 1
    walk = walks.get(event.chain)
    if walk is None:
        verdict.findings.append(f"event {event.id}: chain {event.chain}, where it is, is not there")
        return
    if event.position <= walk.position:
        verdict.findings.append(
            f"event {event.id} (chain {event.chain}, position {event.position}): stands before its "
            "chain's beginning"
        )
        return
    if event.position > walk.position + 1:
        verdict.findings.append(
            f"chain {event.chain}: {_missing(walk.position, event.position)} between "
            f"{_name(walk)} and event {event.id}"
        )
    elif hashlib.sha256(walk.hash + event.fields).digest() != event.hash:
        verdict.findings.append(
            f"event {event.id} (chain {event.chain}, position {event.position}): was changed, or "
            f"does not follow {_name(walk)}"
        )
    walk.position, walk.hash, walk.last_id = event.position, event.hash, event.id
    kept = walk.kept.pop(event.position, None)
    if kept is not None and kept != event.hash.hex():
        verdict.findings.append(
            f"event {event.id} (chain {event.chain}, position {event.position}): is another than "
            "when its head was kept"
        )


def _end(walk: _Walk, verdict: Verdict) -> None:
    chain = walk.chain
    head = chain.head_position
    if head is None:
        if walk.position:
            verdict.findings.append(f"chain {chain.chain}: its head is not there any more")
    elif head > walk.position:
        verdict.findings.append(
            f"chain {chain.chain}: {_missing(walk.position, head + 1)} at its end, after "
            f"{_name(walk)}"
        )
    elif head < walk.position or chain.head_hash != walk.hash:
        verdict.findings.append(
            f"chain {chain.chain}: {_name(walk)} is not the one that its head names"
        )
    for position in sorted(walk.kept):
        if position > chain.pruned_position:
            verdict.findings.append(
                f"chain {chain.chain}: position {position}, a head that was kept, is not there"
            )


def _missing(after: int, before: int) -> str:
    number = before - after - 1
    return "1 event is missing" if number == 1 else f"{number} events are missing"


def _name(walk: _Walk) -> str:
    return "its beginning" if walk.last_id is None else f"event {walk.last_id}"


async def heads(database: Database) -> list[ChainLink]:
    """The newest event of each chain that has any. Kept where no one who can write to the
    database can write, they show even a trail that was forged with its hashes."""
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
    """The events of that time, oldest first, read page by page."""
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
    """Deletes what is older, in statements of at most `PRUNED_AT_ONCE` events; how many went."""
    number = 0
    for work in (audit_chain.prune, audit_chain.prune_unchained):
        while number < MOST_PRUNED:
            gone = await database.single(
                partial(
                    work, older_than_seconds=retention_days * SECONDS_A_DAY, limit=PRUNED_AT_ONCE
                )
            )
            number += gone
            if not gone:
                break
    return number
