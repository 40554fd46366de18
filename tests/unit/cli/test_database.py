"""What becomes of a command whose database stays away."""

from __future__ import annotations

import pytest
import typer

from ignition_broker.cli import database as cli_database
from ignition_broker.cli.database import resuming_by, with_database
from ignition_broker.settings import SettingsError
from ignition_broker.storage.errors import (
    SchemaUnfit,
    SessionsNotKept,
    StorageFault,
    StorageUnavailable,
)


def test_the_last_line_says_how_to_go_on(capsys):
    with pytest.raises(typer.Exit) as ended, resuming_by(lambda: "run it again"):
        raise StorageUnavailable("refused")
    assert ended.value.exit_code == 1
    assert capsys.readouterr() == ("", "the database can't be used: refused; run it again\n")


@pytest.mark.parametrize(
    "error", [SchemaUnfit("old"), SessionsNotKept("pooler"), StorageFault("bug")]
)
def test_what_no_repetition_mends_gets_no_such_line(error):
    with pytest.raises(type(error)), resuming_by(lambda: pytest.fail("no advice is due")):
        raise error


class Opened:
    def __init__(self, *_arguments, **options) -> None:
        self.options = options
        self.is_closed = False

    async def aclose(self) -> None:
        self.is_closed = True


@pytest.fixture
def opened(monkeypatch):
    made: list[Opened] = []

    def database(*arguments, **options) -> Opened:
        made.append(Opened(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(cli_database, "PatientDatabase", database)
    monkeypatch.setenv("DATABASE_URL", "postgresql://broker@127.0.0.1/broker")
    return made


def test_the_database_is_closed_whatever_the_work_does(opened):
    async def work(database):
        return database.options["pool_size"]

    async def fail(_database):
        raise StorageFault("bug")

    assert with_database(work) == 1
    assert with_database(work, pool_size=2) == 2
    with pytest.raises(StorageFault):
        with_database(fail)
    assert [database.is_closed for database in opened] == [True, True, True]


def test_a_wait_is_told_on_stderr(opened, capsys):
    async def work(database):
        database.options["on_wait"]("connection refused")

    with_database(work)
    printed, said = capsys.readouterr()
    assert printed == ""
    assert said == "the database is away (connection refused); waiting for it, 60 s at most\n"


def test_without_an_address_nothing_is_opened(opened, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL")
    with pytest.raises(SettingsError):
        with_database(lambda _database: pytest.fail("it was opened"))
    assert opened == []
