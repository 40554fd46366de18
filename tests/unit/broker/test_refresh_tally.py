"""What replicas add to the hour's numbers of refreshes."""

from __future__ import annotations

from tests.unit.scripted_database import ScriptedDatabase
from tests.unit.values import ManualClock

from ignition_broker.broker.grants.token_outcomes import NotSent, Refused, Withdrawn
from ignition_broker.broker.refresh_tally import FAILED, REFUSED, RefreshTally
from ignition_broker.storage import refresh_hours
from ignition_broker.storage.errors import StorageUnavailable


def added(database: ScriptedDatabase) -> list[dict[tuple[str, str], int]]:
    return [
        dict(
            zip(
                zip(given["clients"], given["outcomes"], strict=True), given["numbers"], strict=True
            )
        )
        for given in database.parameters_of(refresh_hours.ADD)
    ]


async def test_each_outcome_is_added_once_and_what_was_not_sent_to_ignition_not_at_all():
    database = ScriptedDatabase()
    tally = RefreshTally(database, ManualClock())
    for _ in range(3):
        tally.count("default", NotSent("refused"))
    tally.count("sandbox", Refused("invalid_grant"))
    tally.count("default", Withdrawn())
    await tally.flush()
    await tally.flush()
    assert added(database) == [{("default", FAILED): 3, ("sandbox", REFUSED): 1}]


async def test_what_can_not_be_stored_is_added_with_the_next():
    database = ScriptedDatabase({refresh_hours.ADD: StorageUnavailable("away")})
    tally = RefreshTally(database, ManualClock())
    tally.count("default", Refused("invalid_grant"))
    await tally.flush()
    tally.count("default", Refused("invalid_grant"))
    database.answers = {}
    await tally.flush()
    assert added(database) == [{("default", REFUSED): 2}]


async def test_hours_that_are_long_over_are_cleared_once_an_hour():
    database, clock = ScriptedDatabase(), ManualClock()
    tally = RefreshTally(database, clock)
    await tally.flush()
    await tally.flush()
    assert len(database.parameters_of(refresh_hours.CLEAR)) == 1
    await clock.sleep(3600)
    await tally.flush()
    assert len(database.parameters_of(refresh_hours.CLEAR)) == 2
