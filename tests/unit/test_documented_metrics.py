"""`docs/metrics.md` lists exactly the metrics of `/metrics`."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.metrics_core import Metric

from ignition_broker.telemetry import Metrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
SUFFIXES = {"counter": "_total"}


def documented() -> dict[str, str]:
    return dict(re.findall(r"^\| `([a-z_]+)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE))


def test_every_metric_is_documented_with_its_kind():
    families: list[Metric] = list(Metrics().registry.collect())
    there = {f"{each.name}{SUFFIXES.get(each.type, '')}": each.type for each in families}
    assert documented() == there


def test_every_label_is_documented():
    metrics = Metrics()
    metrics.requests.count("/token/{tenant}", "GET", 200)
    metrics.provider_requests.labels("default", "refresh_token", "Renewed").observe(0.1)
    text = PAGE.read_text()
    for family in metrics.registry.collect():
        row = next(line for line in text.splitlines() if f"`{family.name}" in line)
        for sample in family.samples:
            for label in sample.labels.keys() - {"le"}:
                assert f"`{label}`" in row, f"{family.name}: {label}"


def test_strict_auditing_and_what_it_counts_are_named_in_the_docs():
    for page in ("audit.md", "metrics.md"):
        text = (PAGE.parent / page).read_text()
        assert "BROKER_AUDIT_STRICT" in text
        assert "broker_audit_events_lost_total" in text
