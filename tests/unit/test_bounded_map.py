"""A dict that holds a bounded number of entries."""

from __future__ import annotations

from ignition_broker.bounded_map import BoundedMap


def filled(*keys: str, most: int = 3) -> BoundedMap[str, int]:
    entries: BoundedMap[str, int] = BoundedMap(most)
    for number, key in enumerate(keys):
        entries.store(key, number)
    return entries


def test_the_oldest_entry_is_evicted_and_named():
    entries = filled("a", "b", "c")
    assert entries.store("d", 3) == ("a", 0)
    assert list(entries.items()) == [("b", 1), ("c", 2), ("d", 3)]


def test_an_entry_that_is_stored_again_is_the_newest_and_evicts_nothing():
    entries = filled("a", "b", "c")
    assert entries.store("a", 7) is None
    assert list(entries) == ["b", "c", "a"]


def test_reading_alone_keeps_no_entry_and_moving_it_to_the_end_does():
    entries = filled("a", "b", "c")
    assert entries.get("a") == 0
    entries.move_to_end("b")
    entries.store("d", 3)
    entries.store("e", 4)
    assert list(entries) == ["b", "d", "e"]


def test_it_never_holds_more_than_its_bound():
    assert len(filled(*map(str, range(1000)), most=10)) == 10
