"""What verifying finds in chains that were tampered with, and what pruning deletes at once."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from itertools import count

import pytest
from tests.unit.scripted_database import ScriptedDatabase

from ignition_broker.broker.audit import verification
from ignition_broker.broker.audit.verification import Verdict, export, heads, prune, verify
from ignition_broker.model import ChainLink
from ignition_broker.storage import audit, audit_chain

EVENTS = 5
BEGINNING = bytes(32)


class Chains:
    """Chain 1 has `EVENTS` events, the others none."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        hashed = BEGINNING
        for position in range(1, EVENTS + 1):
            fields = f"fields of {position}"
            hashed = hashlib.sha256(hashed + fields.encode()).digest()
            row = {"id": position, "chain": 1, "position": position}
            self.rows.append({**row, "hash": hashed, "fields": fields})
        self.chains = {
            number: {
                "chain": number,
                "pruned_position": 0,
                "pruned_hash": BEGINNING,
                "position": None,
                "hash": None,
            }
            for number in range(1, audit_chain.CHAINS + 1)
        }
        self.chains[1] |= {"position": EVENTS, "hash": hashed}
        self.unchained = {"number": 0, "late": 0}

    def database(self) -> ScriptedDatabase:
        return ScriptedDatabase(
            {
                audit_chain.READ_CHAINS: list(self.chains.values()),
                audit_chain.EVENTS: self._after,
                audit_chain.COUNT_UNCHAINED: [self.unchained],
            }
        )

    def _after(self, given: dict) -> list[dict]:
        place = (given["chain"], given["position"])
        rows = sorted(self.rows, key=lambda row: (row["chain"], row["position"]))
        behind = [row for row in rows if (row["chain"], row["position"]) > place]
        return behind[: given["limit"]]

    def without(self, *positions: int) -> None:
        self.rows = [row for row in self.rows if row["position"] not in positions]


@pytest.fixture
def chains():
    return Chains()


async def findings(chains: Chains, *kept: ChainLink) -> list[str]:
    return (await verify(chains.database(), kept)).findings


@pytest.mark.parametrize("page_size", [1, 2, EVENTS, 100])
async def test_an_intact_trail_has_no_findings_however_it_is_paged(chains, monkeypatch, page_size):
    monkeypatch.setattr(verification, "PAGE_SIZE", page_size)
    assert await verify(chains.database()) == Verdict(events=EVENTS)


async def test_a_changed_event_is_named(chains):
    chains.rows[2]["fields"] = "others"
    assert await findings(chains) == [
        "event 3 (chain 1, position 3): was changed, or does not follow event 2"
    ]


@pytest.mark.parametrize(
    ("gone", "finding"),
    [
        ((1,), "chain 1: 1 event is missing between its beginning and event 2"),
        ((2, 3), "chain 1: 2 events are missing between event 1 and event 4"),
        ((5,), "chain 1: 1 event is missing at its end, after event 4"),
        ((1, 2, 3, 4, 5), "chain 1: 5 events are missing at its end, after its beginning"),
    ],
)
async def test_removed_events_are_counted(chains, gone, finding):
    chains.without(*gone)
    assert await findings(chains) == [finding]


async def test_a_head_that_names_another_event_is_found(chains):
    chains.chains[1]["hash"] = b"another"
    assert await findings(chains) == ["chain 1: event 5 is not the one that its head names"]
    chains.chains[1] |= {"position": None, "hash": None}
    assert await findings(chains) == ["chain 1: its head is missing"]


async def test_a_chain_that_is_gone_is_found_with_its_events(chains):
    del chains.chains[1]
    found = await findings(chains)
    assert found[0] == "chain 1: is missing"
    assert len(found) == 1 + EVENTS


async def test_an_event_that_was_moved_to_a_made_up_chain_is_found(chains):
    chains.rows[4]["chain"] = -7
    assert "event 5: is in chain -7, which does not exist" in await findings(chains)


async def test_what_retention_pruned_is_not_missing_and_what_stands_before_it_is_found(chains):
    chains.chains[1] |= {"pruned_position": 2, "pruned_hash": chains.rows[1]["hash"]}
    assert len(await findings(chains)) == 2
    chains.without(1, 2)
    assert await findings(chains) == []


async def test_kept_heads_find_a_trail_that_was_forged_as_a_whole(chains):
    kept = ChainLink(1, 3, chains.rows[2]["hash"].hex())
    gone = ChainLink(1, 9, "00")
    assert await findings(chains, kept) == []
    assert await findings(chains, gone) == ["chain 1: the kept head at position 9 is missing"]
    forged = ChainLink(1, 3, "00" * 32)
    assert await findings(chains, forged) == [
        "event 3 (chain 1, position 3): is not the event that the kept head names"
    ]


async def test_old_events_without_a_chain_are_counted_and_new_ones_found(chains):
    chains.unchained = {"number": 3, "late": 1}
    verdict = await verify(chains.database())
    assert (verdict.unchained, verdict.findings) == (
        2,
        ["recent events in no chain: 1"],
    )


async def test_heads_are_those_of_chains_that_have_events(chains):
    assert await heads(chains.database()) == [ChainLink(1, EVENTS, chains.rows[-1]["hash"].hex())]


async def test_an_export_goes_on_behind_the_last_event_of_each_page(monkeypatch):
    monkeypatch.setattr(verification, "PAGE_SIZE", 2)
    since = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        {
            **dict.fromkeys(("tenant_id", "request_id", "chain", "position", "hash")),
            "id": number,
            "at": since,
            "actor": "a",
            "action": "x",
            "outcome": "done",
            "detail": {},
        }
        for number in range(5)
    ]

    def page(given):
        return [row for row in rows if row["id"] > given["id"]][: given["limit"]]

    database = ScriptedDatabase({audit.PAGE: page})
    found = [event.id async for event in export(database, since=since, until=None)]
    assert found == [0, 1, 2, 3, 4]
    assert len(database.asked) == 3


async def test_pruning_goes_on_until_nothing_is_old_or_enough_is_gone(monkeypatch):
    monkeypatch.setattr(verification, "MOST_PRUNED", 25)
    left = count(12, -10)
    database = ScriptedDatabase(
        {
            audit_chain.PRUNE: lambda given: [{"id": 0}] * max(0, min(given["limit"], next(left))),
            audit_chain.PRUNE_UNCHAINED: [{"id": 0}] * 10,
        }
    )
    assert await prune(database, retention_days=2) == 12 + 2 + 20
    assert {given["seconds"] for _statement, given in database.asked} == {2 * 86_400}
