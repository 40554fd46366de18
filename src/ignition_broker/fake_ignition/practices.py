"""Made-up accounting practices: rows of the reporting API, the same at every call and start.

A row is computed from the practice's name, the resource and the row's number alone, so that a
practice of any size costs no memory and a page costs its own rows.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any

PRACTICES = {
    "practice_1": "Northwind Accounting",
    "practice_2": "Quillmark & Fenn",
    "practice_3": "Saltbridge Advisory",
}
"""Those that the consent page offers; any other name is a practice too."""
DEFAULT_PRACTICE = "practice_1"

FIRST_UPDATE = datetime(2024, 1, 1, tzinfo=UTC)
LAST_UPDATE = datetime(2026, 1, 1, tzinfo=UTC)
SIZES = {
    "clients": 2_400,
    "contacts": 3_600,
    "services": 60,
    "proposals": 3_000,
    "invoices": 12_000,
    "payments": 9_000,
    "collections": 9_000,
    "deals": 400,
    "deal_stages": 6,
}
_FIXED = frozenset({"deal_stages"})
_FIRST_NAMES = ("Ada", "Bo", "Cleo", "Dev", "Ines", "Jun", "Kofi", "Lena", "Mira", "Noor", "Otis")
_LAST_NAMES = ("Abara", "Brandt", "Castell", "Dunmore", "Ekholm", "Fairley", "Grau", "Hollis")
_PLACES = ("Amberley", "Birchfield", "Coldwater", "Dunhaven", "Eastmoor", "Fernhill", "Glenrock")
_TRADES = ("Bakery", "Joinery", "Dental", "Cycles", "Interiors", "Plumbing", "Vineyards", "Studio")
_SERVICES = ("Bookkeeping", "Payroll", "Annual accounts", "Tax return", "Advisory", "Set-up")
_STAGES = ("New lead", "Contacted", "Meeting held", "Proposal sent", "Won", "Lost")

Row = dict[str, Any]


@dataclass(frozen=True)
class Practice:
    """One practice; ``size`` multiplies the rows that it has."""

    name: str
    size: int = 1

    def count(self, resource: str) -> int:
        """Return how many rows a resource has."""
        return SIZES[resource] * (1 if resource in _FIXED else self.size)

    def first_updated_from(self, resource: str, moment: datetime) -> int:
        """Return the number of the first row that was updated at ``moment`` or later.

        Rows are in the order of their updates, so all behind it were too.
        """
        count = self.count(resource)
        return min(max(ceil((moment - FIRST_UPDATE) / self._step(resource)), 0), count)

    def row(self, resource: str, number: int) -> Row:
        """Return a row by its number, counted from 0."""
        chance = random.Random(f"{self.name}/{resource}/{number}")  # noqa: S311
        updated_at = FIRST_UPDATE + number * self._step(resource)
        row = _MAKERS[resource](self, chance, number)
        created_at = updated_at - timedelta(days=chance.randrange(0, 90))
        return {**row, "created_at": _written(created_at), "updated_at": _written(updated_at)}

    def slug(self, resource: str, chance: random.Random) -> str:
        """Name a row of a resource that another row belongs to."""
        return _slug(resource, chance.randrange(self.count(resource)))

    def _step(self, resource: str) -> timedelta:
        return (LAST_UPDATE - FIRST_UPDATE) / self.count(resource)


_PREFIXES = {
    "clients": "cli",
    "contacts": "con",
    "services": "ser",
    "proposals": "prop",
    "invoices": "inv",
    "payments": "pay",
    "collections": "col",
    "deals": "deal",
    "deal_stages": "stage",
}


def _slug(resource: str, number: int) -> str:
    return f"{_PREFIXES[resource]}_{number + 1:06}"


def _written(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _day(chance: random.Random) -> str:
    return (FIRST_UPDATE + timedelta(days=chance.randrange(730))).date().isoformat()


def _money(chance: random.Random, highest: int) -> Row:
    return {"amount": f"{chance.randrange(5_000, highest * 100) / 100:.2f}", "currency": "AUD"}


def _person(chance: random.Random) -> str:
    return f"{chance.choice(_FIRST_NAMES)} {chance.choice(_LAST_NAMES)}"


def _mail(name: str, number: int) -> str:
    return f"{name.lower().replace(' ', '.')}.{number + 1}@mail.example"


def _client_name(chance: random.Random) -> str:
    return f"{chance.choice(_PLACES)} {chance.choice(_TRADES)}"


def _client(_practice: Practice, chance: random.Random, number: int) -> Row:
    name = _client_name(chance)
    return {
        "slug": _slug("clients", number),
        "name": f"{name} {number + 1}",
        "email": _mail(name, number),
        "state": chance.choice(("lead", "active", "active", "active", "inactive", "archived")),
        "external_client_id": f"EXT-{number + 1:05}",
        "manager": {"name": _person(chance)},
        "tags": chance.sample(("monthly", "quarterly", "gst", "payroll"), chance.randrange(3)),
    }


def _contact(practice: Practice, chance: random.Random, number: int) -> Row:
    name = _person(chance)
    return {
        "id": number + 1,
        "slug": _slug("contacts", number),
        "name": name,
        "email": _mail(name, number),
        "client": {"slug": practice.slug("clients", chance)},
        "is_primary": chance.random() < 0.6,
        "is_signatory": chance.random() < 0.4,
    }


def _service(_practice: Practice, chance: random.Random, number: int) -> Row:
    return {
        "slug": _slug("services", number),
        "name": f"{_SERVICES[number % len(_SERVICES)]} {number // len(_SERVICES) + 1}",
        "state": chance.choice(("active", "active", "archived")),
        "price_type": chance.choice(("fixed", "hourly", "minimum")),
        "price": _money(chance, 4_000),
    }


def _proposal(practice: Practice, chance: random.Random, number: int) -> Row:
    return {
        "slug": _slug("proposals", number),
        "name": f"Engagement {number + 1}",
        "client_slug": practice.slug("clients", chance),
        "state": chance.choice(("draft", "sent", "accepted", "accepted", "lost")),
        "minimum_contract_value": _money(chance, 30_000),
        "proposal_start_date": _day(chance),
    }


def _invoice(practice: Practice, chance: random.Random, number: int) -> Row:
    return {
        "slug": _slug("invoices", number),
        "reference": f"INV-{number + 1:06}",
        "client_slug": practice.slug("clients", chance),
        "payment_state": chance.choice(("unpaid", "partially_paid", "paid", "paid", "paid")),
        "due_date": _day(chance),
        "amount": _money(chance, 9_000),
    }


def _payment(practice: Practice, chance: random.Random, number: int) -> Row:
    return {
        "slug": _slug("payments", number),
        "client_slug": practice.slug("clients", chance),
        "invoices": [{"slug": practice.slug("invoices", chance)}],
        "state": chance.choice(("collected", "collected", "disbursed", "failed")),
        "amount": _money(chance, 9_000),
    }


def _collection(practice: Practice, chance: random.Random, number: int) -> Row:
    return {
        "id": number + 1,
        "slug": _slug("collections", number),
        "client_slug": practice.slug("clients", chance),
        "invoice_slug": practice.slug("invoices", chance),
        "type": chance.choice(("payment_collection", "payment_collection", "clawback")),
        "amount": _money(chance, 9_000),
    }


def _deal(practice: Practice, chance: random.Random, number: int) -> Row:
    return {
        "slug": _slug("deals", number),
        "name": f"{_client_name(chance)}: {chance.choice(_SERVICES)}",
        "client_slug": practice.slug("clients", chance),
        "stage_slug": practice.slug("deal_stages", chance),
        "priority": chance.choice(("low", "medium", "high")),
        "projected_value": _money(chance, 20_000),
    }


def _deal_stage(_practice: Practice, _chance: random.Random, number: int) -> Row:
    return {
        "slug": _slug("deal_stages", number),
        "name": _STAGES[number],
        "position": number + 1,
        "win_likelihood": (10, 25, 50, 75, 100, 0)[number],
    }


_MAKERS: dict[str, Callable[[Practice, random.Random, int], Row]] = {
    "clients": _client,
    "contacts": _contact,
    "services": _service,
    "proposals": _proposal,
    "invoices": _invoice,
    "payments": _payment,
    "collections": _collection,
    "deals": _deal,
    "deal_stages": _deal_stage,
}
