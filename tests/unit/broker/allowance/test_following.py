"""Ignition's word goes before our count: others use the practice, its windows are its own."""

from __future__ import annotations

import pytest
from tests.unit.broker.allowance.world import World, caller


def until(world: World) -> float:
    return world.provider.ends_at


def wanted(world: World) -> dict[str, float]:
    """Three times what there is; five keys want half of an equal share."""
    small = world.calls / 40
    large = (3 * world.calls - 5 * small) / 15
    return {f"s{n}": small for n in range(5)} | {f"b{n}": large for n in range(15)}


@pytest.mark.parametrize("tells", [True, False])
def test_a_window_is_used_to_the_full_fairly_and_without_a_refusal_of_ignitions(tells):
    world = World(tells=tells)
    keys = wanted(world)
    world.run(world.clock.at + 59, keys)
    served = dict(world.served)
    world.run(world.clock.at + 5, keys)
    assert world.provider.throttled == 0
    assert world.provider.windows[0] >= 980
    assert min(served[f"s{n}"] for n in range(5)) >= 0.8 * 25
    assert min(served[f"b{n}"] for n in range(15)) >= 0.8 * (1000 - 125) / 15


@pytest.mark.parametrize("tells", [True, False])
def test_a_killed_replica_costs_at_most_its_chunk(tells):
    world = World(tells=tells)
    keys = wanted(world)
    world.run(world.clock.at + 6, keys)
    world.replicas.pop(0)
    world.run(world.clock.at + 58, keys)
    assert world.provider.throttled == 0
    assert world.provider.windows[0] >= 980


def test_what_others_use_is_not_there_for_us():
    world = World()
    keys = wanted(world)
    world.run(world.clock.at + 125, keys, others=300)
    assert len(world.provider.windows) == 2
    assert all(used >= 980 for used in world.provider.windows)
    # Ours are throttled at most twice a window; the others are theirs to pace.
    assert world.provider.throttled <= 2 * 3 + 300


def test_ours_are_seldom_throttled_though_others_use_the_practice():
    world = World()
    throttled = 0
    keys = wanted(world)
    for replica in world.replicas:
        answer = replica.answer

        def counting(who, epoch, status, headers, answer=answer):
            nonlocal throttled
            throttled += status == 429
            answer(who, epoch, status, headers)

        replica.answer = counting
    world.run(world.clock.at + 60, keys, others=300)
    assert throttled <= 2


def test_a_window_that_somebody_else_spent_costs_one_refusal():
    world = World()
    for _ in range(1000):
        world.provider.call()
    world.run(world.clock.at + 20, wanted(world))
    assert world.provider.throttled == 1


def test_a_window_of_ignitions_that_ends_sooner_is_followed():
    world = World(seconds=60.0)
    world.provider.ends_at = world.clock.at + 10
    keys = {f"bulk-{number}": 10_000.0 for number in range(4)}
    world.run(world.clock.at + 9, keys)
    assert world.provider.used >= 995
    world.run(world.clock.at + 10, keys)
    assert world.provider.windows[-1] >= 995
    assert world.provider.used > 900
    assert world.provider.throttled == 0


def test_ignitions_clock_that_is_turned_on_begins_another_window():
    world = World()
    one = world.replicas[0]
    for _ in range(30):
        world.clock.at += 0.01
        assert one.call(caller("key"), world.provider)
    world.clock.at += 35
    world.provider.ends_at = 0
    for _ in range(30):
        world.clock.at += 0.01
        assert one.call(caller("key"), world.provider)
    plan = one.report()
    assert (plan.window.number, plan.window.counted) == (2, 30)
    assert plan.window.ends_at - world.clock.at == pytest.approx(59 + 5_000_000, abs=1)


def test_requests_that_ignition_does_not_count_are_not_held_against_us():
    world = World()
    one = world.replicas[0]
    used = 0
    for number in range(1500):
        world.clock.at += 0.01
        if not one.enter(caller("key")):
            break
        used += 1
        if number % 2:
            left = world.provider.calls - world.provider.used
            headers = [(b"x-ratelimit-limit", b"1000"), (b"x-ratelimit-remaining", b"%d" % left)]
            headers.append((b"x-ratelimit-reset", b"%d" % world.provider.ends_at))
            one.answer(caller("key"), one.holding.epoch, 200, headers)
        else:
            one.answer(caller("key"), one.holding.epoch, *world.provider.call())
    assert used > 1400


def test_a_bare_429_pauses_for_a_part_of_the_window():
    world = World()
    one = world.replicas[0]
    assert one.enter(caller("key"))
    one.answer(caller("key"), one.holding.epoch, 429, [])
    assert not one.enter(caller("key"))
    world.clock.at += 1.5
    assert one.enter(caller("key"))


def test_retry_after_is_followed():
    world = World()
    one = world.replicas[0]
    assert one.enter(caller("key"))
    one.answer(caller("key"), one.holding.epoch, 429, [(b"retry-after", b"20")])
    world.clock.at += 19
    assert not one.enter(caller("key"))
    world.clock.at += 1.5
    assert one.enter(caller("key"))


def test_another_replica_hears_of_a_429():
    world = World()
    one, two = world.replicas[:2]
    assert one.enter(caller("key"))
    one.answer(caller("key"), one.holding.epoch, 429, [(b"retry-after", b"20")])
    one.report()
    assert not two.enter(caller("key"))


def test_a_late_answer_of_the_window_before_does_not_count_in_the_new_one():
    world = World()
    one = world.replicas[0]
    for _ in range(3):
        assert one.call(caller("key"), world.provider)
    assert one.enter(caller("key"))
    epoch = one.holding.epoch
    old = world.provider.call()
    world.clock.at = world.provider.ends_at + 1.2
    assert one.call(caller("key"), world.provider)
    assert one.holding.carried == 1
    one.answer(caller("key"), epoch, *old)
    assert one.holding.carried == 0
    plan = one.report()
    assert plan.window.number == 2
    assert plan.window.counted == 1


def test_the_limit_that_ignition_tells_holds_if_it_is_the_lower_one():
    world = World()
    world.provider.calls = 50
    world.run(world.clock.at + 20, {"bulk": 5000.0})
    assert world.provider.used == 50
    assert world.provider.throttled == 0


def test_a_higher_limit_than_the_setting_is_left_to_others():
    world = World(calls=100)
    world.provider.calls = 1000
    world.run(world.clock.at + 30, {"bulk": 5000.0})
    assert world.provider.used == 100


@pytest.mark.parametrize("weight", [2, 5])
def test_shares_are_in_proportion_to_weights(weight):
    world = World(size=1)
    one = world.replicas[0]
    heavy, light = caller("heavy", weight=weight), caller("light")
    served = {"heavy": 0, "light": 0}
    for _ in range(3000):
        world.clock.at += 0.005
        for who in (light, heavy):
            served[who.name] += one.call(who, world.provider)
    assert served["heavy"] + served["light"] == 1000
    assert served["heavy"] / served["light"] == pytest.approx(weight, rel=0.05)
