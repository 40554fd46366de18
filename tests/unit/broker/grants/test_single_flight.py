from __future__ import annotations

import asyncio
import contextlib

from ignition_broker.broker.grants.single_flight import SingleFlight


async def test_a_caller_that_goes_away_leaves_the_flight_in_the_air():
    flights: SingleFlight[str] = SingleFlight()
    may_land = asyncio.Event()

    async def work() -> str:
        await may_land.wait()
        return "landed"

    flight = flights.start("acme", work())
    caller = asyncio.create_task(asyncio.wait_for(asyncio.shield(flight.task), 60))
    await asyncio.sleep(0)
    caller.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await caller
    assert "acme" in flights
    may_land.set()
    await flights.wait_all(1)
    assert flight.task.result() == "landed"
    assert "acme" not in flights


async def test_all_land_also_those_that_another_took_the_place_of():
    flights: SingleFlight[int] = SingleFlight()
    landed = []

    async def work(number: int) -> int:
        await asyncio.sleep(0.01)
        landed.append(number)
        return number

    for number in range(3):
        flights.start("acme", work(number))
    assert flights.current("acme") is not None
    await flights.wait_all(1)
    assert sorted(landed) == [0, 1, 2]


async def test_a_flight_is_not_joined_from_the_moment_it_ends():
    flights: SingleFlight[str] = SingleFlight()

    async def work() -> str:
        return "landed"

    flight = flights.start("acme", work())
    # Runs after the task's only step and before its done callbacks.
    found: list[object] = []
    asyncio.get_running_loop().call_soon(lambda: found.append(flights.current("acme")))
    assert await flight.task == "landed"
    assert found == [None]
