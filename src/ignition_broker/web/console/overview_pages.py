"""The console's first page: all tenants at a glance, and what needs a human."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, RedirectResponse, Response

from ignition_broker.broker.grants.tenants import list_tenants
from ignition_broker.broker.overview import read_overview
from ignition_broker.broker.refresh_tally import FAILED, REFUSED, RENEWED
from ignition_broker.storage.refresh_hours import RefreshHour
from ignition_broker.web.console.return_paths import HOME
from ignition_broker.web.console_values import utc
from ignition_broker.web.dependencies import BrokerServices
from ignition_broker.web.rendering import FOLDER, console_page

router = APIRouter(include_in_schema=False)

TENANTS_SHOWN: Final = 20
_WIDTH, _HEIGHT, _GAP = 480, 120, 4
_LEAST_SHOWN = 2.0


@dataclass(frozen=True, slots=True)
class Part:
    outcome: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One hour. ``parts``: from the ground up."""

    x: float
    width: float
    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Refreshes by the hour, in the units of an SVG of ``width`` by ``height``."""

    width: int
    height: int
    bars: tuple[Bar, ...]
    since: datetime
    renewed: int
    failed: int
    refused: int
    most: int

    @property
    def total(self) -> int:
        return self.renewed + self.failed + self.refused


def chart(hours: Sequence[RefreshHour]) -> Chart:
    """The bars of at least one hour. Pure."""
    totals = {
        outcome: sum(each.numbers.get(outcome, 0) for each in hours)
        for outcome in (RENEWED, FAILED, REFUSED)
    }
    most = max(sum(each.numbers.values()) for each in hours)
    step = _WIDTH / len(hours)
    bars = []
    for number, each in enumerate(hours):
        heights = {
            # One failure among a million must be seen too.
            outcome: max(each.numbers[outcome] / most * _HEIGHT, _LEAST_SHOWN)
            for outcome in (FAILED, REFUSED)
            if each.numbers.get(outcome)
        }
        if each.numbers.get(RENEWED):
            room = _HEIGHT - sum(heights.values())
            heights = {RENEWED: min(each.numbers[RENEWED] / most * _HEIGHT, room), **heights}
        ground, parts = float(_HEIGHT), []
        for outcome, height in heights.items():
            ground -= height
            parts.append(Part(outcome, round(ground, 2), round(height, 2)))
        told = ", ".join(f"{count} {name}" for name, count in each.numbers.items() if count)
        title = f"{utc(each.hour)}: {told or 'none'}"
        bars.append(Bar(round(number * step, 2), round(step - _GAP, 2), title, tuple(parts)))
    return Chart(
        _WIDTH,
        _HEIGHT,
        tuple(bars),
        hours[0].hour,
        totals[RENEWED],
        totals[FAILED],
        totals[REFUSED],
        most,
    )


@router.get("/style.css")
async def style() -> Response:
    return FileResponse(FOLDER / "static" / "style.css", media_type="text/css")


@router.get("/console.js")
async def script() -> Response:
    return FileResponse(FOLDER / "static" / "console.js", media_type="text/javascript")


@router.get(HOME)
async def overview(request: Request, services: BrokerServices) -> Response:
    session = await services.sessions.read(request)
    if session is None:
        return RedirectResponse("/login", 303)
    read = await read_overview(services.database)
    tenants = await list_tenants(services.database, limit=TENANTS_SHOWN + 1)
    return console_page(
        "console.html",
        session=session,
        here=HOME,
        overview=read,
        chart=chart(read.hours),
        breakers={name: breaker.is_open for name, breaker in services.breakers.items()},
        tenants=tenants[:TENANTS_SHOWN],
        has_more=len(tenants) > TENANTS_SHOWN,
        clients=services.clients.all,
        now=services.clock.now(),
        asks=services.identification.asks_any,
    )
