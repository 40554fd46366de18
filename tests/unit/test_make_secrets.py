"""`make secrets`: other users of the machine can read none of them."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "make-secrets"


def make_secrets(folder: Path, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, folder],
        env={**os.environ, "IGNITION_CLIENT_ID": "id", "IGNITION_CLIENT_SECRET": "secret"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        umask=umask,
        check=False,
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("before", [None, 0o755, 0o777, 0o750])
def test_the_folder_is_its_owners_alone_also_where_it_was_there_before(tmp_path, before):
    folder = tmp_path / "secrets"
    if before is not None:
        folder.mkdir()
        folder.chmod(before)
    for _ in range(2):
        ended = make_secrets(folder)
        assert ended.returncode == 0, ended.stderr
        assert mode(folder) == 0o700
    # Compose mounts them with this owner and mode; the container runs as another user.
    assert {mode(file) for file in folder.iterdir()} == {0o444}
    assert len(list(folder.iterdir())) == 11


def test_a_folder_that_was_opened_since_is_closed_and_its_files_stay(tmp_path):
    folder = tmp_path / "secrets"
    assert make_secrets(folder).returncode == 0
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    folder.chmod(0o755)
    assert make_secrets(folder).returncode == 0
    assert mode(folder) == 0o700
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_folder_behind_a_link_is_closed_too(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir(mode=0o755)
    (tmp_path / "secrets").symlink_to(folder)
    assert make_secrets(tmp_path / "secrets").returncode == 0
    assert mode(folder) == 0o700
