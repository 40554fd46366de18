"""README, `.env.example` and compose file list the same settings, with the same defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import PydanticUndefined

from ignition_broker.settings import Settings

ROOT = Path(__file__).parents[2]
# It says where the settings are, so it is not a setting itself.
FOLDER = "BROKER_SECRETS_DIR"
# Fixed in the container: it listens on this port, on all addresses.
FIXED_IN_CONTAINER = {"BROKER_HOST", "BROKER_PORT"}

FIELDS = {name.upper(): field for name, field in Settings.model_fields.items()}
DEFAULTS = {name: field.default for name, field in FIELDS.items() if not field.is_required()}
SECRETS = {name for name, field in FIELDS.items() if "SecretStr" in str(field.annotation)} | {
    "IGNITION_CLIENT_ID"
}


def test_the_example_file_names_every_setting() -> None:
    assert set(example()) == set(FIELDS) | {FOLDER} | compose_variables()


def test_the_example_file_shows_every_default() -> None:
    shown = example()
    assert {name: shown[name] for name in DEFAULTS} == {
        name: "" if default is None else shown_as(default) for name, default in DEFAULTS.items()
    }


def test_the_readme_names_every_setting_with_its_default() -> None:
    assert dict(readme_rows()) == {
        name: written(DEFAULTS.get(name, PydanticUndefined)) for name in FIELDS
    }


def test_compose_passes_every_setting_that_is_no_secret() -> None:
    passed = compose()["x-broker"]["environment"]
    assert set(passed) == set(FIELDS) - SECRETS - FIXED_IN_CONTAINER | {FOLDER}
    assert {name for name, value in passed.items() if value is not None} == {FOLDER}


def test_compose_mounts_every_secret_under_its_settings_name() -> None:
    file = compose()
    assert set(file["x-broker"]["secrets"]) == {name.lower() for name in SECRETS}
    assert {name: secret["file"] for name, secret in file["secrets"].items()} == {
        name: f"./secrets/{name}" for name in {*file["x-broker"]["secrets"], "postgres_password"}
    }


def example() -> dict[str, str]:
    lines = re.findall(r"^#([A-Z0-9_]+)=(.*)$", read(".env.example"), re.MULTILINE)
    assert len(lines) == len(dict(lines))
    return dict(lines)


def readme_rows() -> list[tuple[str, str]]:
    """A row may hold two settings, with one default each or one for both."""
    table = read("README.md").split("\n## Settings\n")[1].split("\n## ")[0]
    rows: list[tuple[str, str]] = []
    for row in re.findall(r"^\| (`.*?) \| (.*?) \|", table, re.MULTILINE):
        names, defaults = (cell.split(", ") for cell in row)
        defaults *= len(names) // len(defaults)
        rows += zip((name.strip("`") for name in names), defaults, strict=True)
    assert len(rows) == len(dict(rows))
    return rows


def written(default: object) -> str:
    match default:
        case _ if default is PydanticUndefined:
            return "required"
        case None:
            return "unset"
        case "":
            return "empty"
        case _:
            return f"`{shown_as(default)}`"


def shown_as(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def compose_variables() -> set[str]:
    return set(re.findall(r"\$\{([A-Z_]+)", read("docker-compose.yml")))


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load(read("docker-compose.yml")))


def read(name: str) -> str:
    return (ROOT / name).read_text()
