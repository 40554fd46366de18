from __future__ import annotations

import re
from pathlib import Path

from alembic.script import ScriptDirectory

from ignition_broker.storage.schema import newest_version

MIGRATIONS = Path(__file__).parents[3] / "migrations"


def test_the_newest_version_is_where_the_migrations_end():
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == newest_version()


def test_a_migration_says_in_its_name_whether_old_code_can_run_on_it():
    for file in (MIGRATIONS / "versions").glob("*.py"):
        assert re.fullmatch(r"\d{4}_(expand|contract)_[a-z0-9_]+\.py", file.name), file.name
