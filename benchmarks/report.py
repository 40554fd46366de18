"""What was measured, as rows: a table, a plot, and JSON for whoever compares runs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("uvicorn", "uvloop", "httptools", "fastapi", "asyncpg", "cryptography", "aiohttp")


@dataclass(frozen=True, slots=True)
class Row:
    """``measured`` and ``beside`` in ``unit``; ``wanted`` is of their ratio where there are both,
    else of ``measured``. ``is_most``: less is better."""

    case: str
    measured: float
    unit: str
    beside: float | None = None
    reference: str = ""
    wanted: float | None = None
    is_most: bool = False

    @property
    def judged(self) -> float:
        return self.measured if self.beside is None else self.measured / self.beside

    @property
    def is_met(self) -> bool | None:
        if self.wanted is None:
            return None
        return self.judged <= self.wanted if self.is_most else self.judged >= self.wanted


def write(rows: list[Row], details: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    about = _about()
    found = {"about": about, "rows": [asdict(row) for row in rows]}
    (RESULTS / "latest.json").write_text(json.dumps(found, indent=1) + "\n")
    lines = [f"{name}: {value}  " for name, value in about.items()]
    text = "\n".join(["# Benchmarks", "", *lines, "", table(rows), "", details, ""])
    (RESULTS / "latest.md").write_text(text)
    _plot(rows, RESULTS / "latest.svg")


def table(rows: list[Row]) -> str:
    lines = ["| case | measured | beside | ratio | wanted |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        beside = "" if row.beside is None else f"{_short(row.beside)} {row.unit}, {row.reference}"
        ratio = "" if row.beside is None else f"{row.judged:.2f}x"
        wanted = ""
        if row.wanted is not None:
            unit = "x" if row.beside is not None else f" {row.unit}"
            wanted = f"{'at most' if row.is_most else 'at least'} {row.wanted:g}{unit}: "
            wanted += "met" if row.is_met else "**missed**"
        lines.append(
            f"| {row.case} | {_short(row.measured)} {row.unit} | {beside} | {ratio} | {wanted} |"
        )
    return "\n".join(lines)


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _about() -> dict[str, str]:
    model = next(
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    git = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return {
        "machine": f"{model}, {os.cpu_count()} cores, Linux {platform.release()}",
        "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip(),
        "Python": platform.python_version(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
    }


def _plot(rows: list[Row], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    shown = [row for row in rows if row.wanted is not None][::-1]
    # How many times over each is met; for what is to be small, how many times it would fit.
    shares = [
        row.wanted / row.judged if row.is_most and row.judged else row.judged / (row.wanted or 1)
        for row in shown
    ]
    figure, axes = plt.subplots(figsize=(9, 0.34 * len(shown) + 1.2), layout="constrained")
    names = [f"{row.case} / {row.reference}" if row.reference else row.case for row in shown]
    colors = ["#2b7" if share >= 1 else "#c43" for share in shares]
    axes.barh(names, [share - 1 for share in shares], left=1, color=colors)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("times what is wanted (1: met)")
    axes.tick_params(axis="y", labelsize=8)
    figure.savefig(file, metadata={"Date": None})
