"""`tenants set` and `--label`: what is refused before the database is asked."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ignition_broker.cli import tenants


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["set", "acme"], "give --name, --label, --no-name or --no-labels"),
        (["set", "acme", "--name", "x", "--no-name"], "give --name or --no-name, not both"),
        (["set", "acme", "--label", "a=b", "--no-labels"], "give --label or --no-labels, not both"),
        (["set", "acme", "--label", "a"], "must be key=value"),
        (["set", "acme", "--label", "a=1", "--label", "a=2"], "twice"),
        (["connect-link", "acme", "--label", "a b=c"], "the key 'a b'"),
        (["list", "--label", "a"], "must be key=value"),
    ],
)
def test_wrong_usage_is_told_before_the_database_is_asked(arguments, told, monkeypatch):
    monkeypatch.setattr(tenants, "with_database", lambda _work: pytest.fail("it was asked"))
    done = CliRunner().invoke(tenants.app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == 2
    assert told in " ".join(done.output.replace("│", " ").split()), done.output


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ({"a": "1", "b": ""}, "a=1, b="),
        (("beta", "gamma"), "beta, gamma"),
        ((), ""),
        (True, "True"),
    ],
)
def test_each_kind_of_field_is_shown_on_one_line(value, text):
    assert tenants._shown(value) == text
