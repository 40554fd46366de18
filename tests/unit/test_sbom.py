"""`make sbom`: what the image holds of Python packages."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_sbom_names_every_locked_package_with_its_hashes(tmp_path):
    file = tmp_path / "sbom.cdx.json"
    recipe = (ROOT / "Makefile").read_text().split("\nsbom:")[1].split("\n\n")[0]
    command = recipe[recipe.index("-m cyclonedx_py") :].replace("\\\n", " ")
    arguments = shlex.split(command.replace("artifacts/sbom.cdx.json", str(file)))
    made = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    bom = json.loads(file.read_text())
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert bom["metadata"]["component"]["name"] == "ignition-broker"
    listed = {(each["name"], each["version"]): each for each in bom["components"]}
    assert set(listed) == locked()
    for component in listed.values():
        (source,) = component["externalReferences"]
        assert source["hashes"], component["name"]


def locked() -> set[tuple[str, str]]:
    lines = (ROOT / "requirements" / "runtime.txt").read_text()
    return set(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;]+)", lines, re.MULTILINE))


def test_no_lock_names_a_registry_and_every_line_has_a_hash():
    for lock in ("runtime", "dev", "build", "uv"):
        text = (ROOT / "requirements" / f"{lock}.txt").read_text()
        assert "://" not in text
        assert "--index" not in text
        packages = re.findall(r"^[A-Za-z0-9].*?(?=^[A-Za-z0-9]|\Z)", text, re.MULTILINE | re.DOTALL)
        assert len(packages) > 0
        assert all("--hash=sha256:" in package for package in packages), lock


def test_the_image_stands_on_one_base_that_can_be_pinned():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM ")] == [
        "FROM ${BASE} AS builder",
        "FROM ${BASE}",
    ]
    assert sum(line.startswith("ARG BASE=") for line in lines) == 1
