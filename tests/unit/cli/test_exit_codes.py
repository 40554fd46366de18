"""What each kind of failure makes of a command: its exit code, and lines on stderr alone."""

from __future__ import annotations

import pytest

from ignition_broker import cli
from ignition_broker.broker.errors import Conflict, InvalidRequest, NotFound, Unavailable
from ignition_broker.cipher import Unreadable
from ignition_broker.embedded import EmbeddedPostgresError
from ignition_broker.settings import SettingsError
from ignition_broker.storage.errors import SchemaUnfit, SessionsNotKept, StorageUnavailable


@pytest.mark.parametrize(
    ("error", "exit_code", "said"),
    [
        (SettingsError(["A: is missing", "B: is missing"]), 2, "A: is missing\nB: is missing\n"),
        (InvalidRequest("name: too long."), 2, "name: too long.\n"),
        (SessionsNotKept("a pooler"), 2, "DATABASE_URL: a pooler\n"),
        (NotFound("No API key called 'x'."), 1, "No API key called 'x'.\n"),
        (Conflict("a key called 'x' exists."), 1, "a key called 'x' exists.\n"),
        (Unavailable("away."), 1, "away.\n"),
        (StorageUnavailable("refused"), 1, "the database can't be used: refused\n"),
        (SchemaUnfit("too old"), 1, "the database can't be used: too old\n"),
        (Unreadable("no key", tenant="t", column="c", ciphertext=b""), 1, "no key\n"),
        (EmbeddedPostgresError("not installed"), 1, "not installed\n"),
    ],
)
def test_a_failure_has_its_exit_code_and_a_line_on_stderr(
    monkeypatch, capsys, error, exit_code, said
):
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == exit_code
    assert capsys.readouterr() == ("", said)
