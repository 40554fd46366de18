"""The chart of the last day's refreshes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ignition_broker.storage.refresh_hours import RefreshHour
from ignition_broker.web.console.overview_pages import chart

FIRST = datetime(2026, 1, 31, tzinfo=UTC)


def day(**numbers_by_hour: dict[str, int]) -> list[RefreshHour]:
    return [
        RefreshHour(FIRST + timedelta(hours=hour), numbers_by_hour.get(f"h{hour}", {}))
        for hour in range(24)
    ]


def test_the_busiest_hour_fills_the_height_and_the_others_are_in_proportion():
    drawn = chart(day(h3={"renewed": 100}, h5={"renewed": 40, "failed": 10}))
    assert (drawn.renewed, drawn.failed, drawn.refused, drawn.most) == (140, 10, 0, 100)
    (whole,) = drawn.bars[3].parts
    assert (whole.y, whole.height) == (0, drawn.height)
    renewed, failed = drawn.bars[5].parts
    assert renewed.height == 0.4 * drawn.height
    assert failed.height == 0.1 * drawn.height
    assert failed.y == drawn.height / 2, "it stands on the other"
    assert drawn.bars[5].title == "2026-01-31 05:00:00 UTC: 40 renewed, 10 failed"


def test_one_refusal_among_a_million_is_seen_and_nothing_leaves_the_picture():
    drawn = chart(day(h0={"renewed": 1_000_000, "refused": 1, "failed": 1}))
    parts = drawn.bars[0].parts
    assert [part.height for part in parts] == [drawn.height - 4, 2, 2]
    assert parts[-1].y == 0
    drawn = chart(day(h0={"renewed": 1_000_000}, h1={"refused": 1}))
    (refused,) = drawn.bars[1].parts
    assert refused.height == 2


def test_a_day_without_refreshes_is_an_empty_one():
    drawn = chart(day())
    assert drawn.total == 0
    assert all(bar.parts == () for bar in drawn.bars)
