"""Play a compose file without a Docker engine: part of ``scripts/image-check``, which see.

The database service is an embedded Postgres; every other one runs from the built image's root file
system as an engine would start it: read-only, secrets mounted, no capabilities, the image's user.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from ignition_broker.embedded import EmbeddedPostgres

DATABASE = "db"
# What an engine does ahead of the entry point, in a mount namespace that ends with it.
CONTAINER = """
root=$1 secrets=$2 user=$3 tmpfs=$4 read_only=$5; shift 5
mount --bind "$root" "$root"
mkdir -p "$root/run/secrets" "$root/proc" "$root/dev"
mount --bind "$secrets" "$root/run/secrets"
for folder in $tmpfs; do mount -t tmpfs -o nosuid,nodev,noexec tmpfs "$root$folder"; done
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
if [ "$read_only" = True ]; then mount -o remount,bind,ro "$root"; fi
exec setpriv --no-new-privs chroot --userspec="$user" "$root" "$@"
"""

READ_ONLY = "import os, sys; sys.exit(not os.statvfs('/').f_flag & os.ST_RDONLY)"


@dataclass(frozen=True)
class Image:
    """What the Dockerfile says about running it."""

    root: Path
    user: str
    environment: Mapping[str, str]
    entrypoint: list[str]
    command: list[str]
    health_check: list[str]
    stop_signal: signal.Signals


@dataclass(frozen=True)
class Service:
    """One service of the compose file, ready to be started."""

    name: str
    image: Image
    environment: Mapping[str, str]
    command: list[str]
    secrets: Path
    tmpfs: list[str]
    is_read_only: bool
    grace_seconds: float

    def start(self, command: list[str], *, output: int | None = None) -> subprocess.Popen[bytes]:
        arguments = [str(self.image.root), str(self.secrets), self.image.user]
        arguments += [" ".join(self.tmpfs), str(self.is_read_only)]
        return subprocess.Popen(
            ["/usr/bin/unshare", "--mount", "sh", "-euc", CONTAINER, "sh", *arguments, *command],
            env={**self.image.environment, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )

    def run(self, *command: str) -> int:
        return self.start(list(command)).wait(60)

    def is_healthy(self) -> bool:
        return self.start(self.image.health_check, output=subprocess.DEVNULL).wait(10) == 0


def main(compose_path: Path, image_path: Path, root: Path, work: Path) -> None:
    compose = yaml.safe_load(compose_path.read_text())
    image = read_image(json.loads(image_path.read_text())["Docker"]["config"], root)
    check_image(image)
    secrets = make_secrets(work / "secrets")
    with database(compose["services"][DATABASE], secrets, work) as address:
        port = free_port()
        replace_secret(secrets / "database_url", f"@{DATABASE}:5432/", f"@{address}/")
        for name in in_order(compose["services"]):
            service = read_service(name, compose, image, secrets, port)
            if "ports" in compose["services"][name]:
                check_service(service, port)
            else:
                expect(service.run(*image.entrypoint, *service.command) == 0, f"{name} ends with 0")
                again = service.run(*image.entrypoint, *service.command)
                expect(again == 0, f"{name} may run again")


def check_image(image: Image) -> None:
    uid = image.user.split(":")[0]
    expect(uid.isdigit() and int(uid) > 0, f"the user is numeric and not root: {image.user}")
    home = image.root / "opt/ignition-broker"
    tools = {"pip", "pip3", "uv", "gcc", "cc", "hatchling", "wheel"}
    expect(not tools & {path.name for path in (home / "bin").iterdir()}, "the venv has no tools")
    packages = next(home.glob("lib/python3*/site-packages"))
    expect(not (packages / "pip").exists(), "the venv has no pip")
    expect(not (packages / "setuptools").exists(), "the venv has no setuptools")
    expect(not list(image.root.glob("usr/bin/*gcc")), "there is no compiler")
    expect(any(packages.glob("ignition_broker/**/*.pyc")), "the bytecode is there")
    expect(not (image.root / "build").exists(), "nothing of the build is left")
    files = [path.lstat() for path in home.rglob("*")]
    expect(all(file.st_uid == 0 for file in files), "the service's own files belong to root")


def check_service(service: Service, port: int) -> None:
    image = service.image
    expect(not service.is_healthy(), "the health check fails while nothing runs")
    expect(service.run("python", "-c", READ_ONLY) == 0, "the root file system is read-only")
    begun = time.monotonic()
    running = service.start([*image.entrypoint, *service.command])
    try:
        while not service.is_healthy() and running.poll() is None:
            if time.monotonic() > begun + 30:
                break
            time.sleep(0.2)
        took = time.monotonic() - begun
        expect(service.is_healthy(), f"the image's health check passes after {took:.1f} s")
        status = Path(f"/proc/{running.pid}/status").read_text()
        expect(f"Uid:\t{image.user.split(':')[0]}\t" in status, "it runs as the image's user")
        expect("CapPrm:\t0000000000000000" in status, "it has no capabilities")
        expect(answer(port, "/readyz") == 200, "/readyz answers 200")
        expect(answer(port, "/admin/tenants") == 401, "/admin/tenants without a key answers 401")
        key = (service.secrets / "broker_admin_key").read_text()
        expect(answer(port, "/admin/tenants", key) == 200, "and 200 with the key of the secret")
    except BaseException:
        running.kill()
        raise
    begun = time.monotonic()
    running.send_signal(image.stop_signal)
    code = running.wait(service.grace_seconds)
    took = time.monotonic() - begun
    expect(code == 0, f"{image.stop_signal.name} ends it after {took:.1f} s; exit code {code}")


@contextmanager
def database(service: Mapping[str, Any], secrets: Path, work: Path) -> Iterator[str]:
    """The service's role and database, with its password file; yields host and port."""
    environment = service["environment"]
    role, name = environment["POSTGRES_USER"], environment["POSTGRES_DB"]
    password = (secrets / Path(environment["POSTGRES_PASSWORD_FILE"]).name).read_text()
    with EmbeddedPostgres(work / "postgres", fsync=False) as postgres:
        postgres.create_database(name)
        url = postgres.url(name).replace("+asyncpg", "")
        for statement in (
            f"CREATE ROLE {role} LOGIN PASSWORD '{quote(password)}'",
            f"ALTER DATABASE {name} OWNER TO {role}",
            f"ALTER SCHEMA public OWNER TO {role}",
        ):
            subprocess.run([postgres.binary("psql"), "-qXc", statement, url], check=True)
        yield f"127.0.0.1:{postgres.port}"


def read_image(config: Mapping[str, Any], root: Path) -> Image:
    kind, *health_check = config["Healthcheck"]["Test"]
    expect(kind == "CMD", "the health check needs no shell")
    return Image(
        root=root,
        user=config["User"],
        environment=dict(line.split("=", 1) for line in config["Env"]),
        entrypoint=config["Entrypoint"],
        command=config["Cmd"],
        health_check=health_check,
        stop_signal=signal.Signals[config.get("StopSignal", "SIGTERM")],
    )


def read_service(
    name: str, compose: Mapping[str, Any], image: Image, secrets: Path, port: int
) -> Service:
    service = compose["services"][name]
    for secret in service["secrets"]:
        file = Path(compose["secrets"][secret]["file"]).name
        expect((secrets / file).exists(), f"make-secrets writes {file}")
    given = {key: value or os.environ.get(key) for key, value in service["environment"].items()}
    return Service(
        name=name,
        image=image,
        # Host and container share the network here, so the published port is the service's own.
        environment={key: value for key, value in given.items() if value}
        | {"BROKER_PORT": str(port)},
        command=service.get("command", image.command),
        secrets=secrets,
        tmpfs=service.get("tmpfs", []),
        is_read_only=service.get("read_only", False),
        grace_seconds=float(service.get("stop_grace_period", "10s").removesuffix("s")),
    )


def in_order(services: Mapping[str, Any]) -> list[str]:
    """Every service but the database, each after those it depends on."""
    ordered = [DATABASE]
    while len(ordered) < len(services):
        ordered.append(
            next(
                name
                for name, service in services.items()
                if name not in ordered and set(service["depends_on"]) <= set(ordered)
            )
        )
    return ordered[1:]


def make_secrets(folder: Path) -> Path:
    script = Path(__file__).with_name("make-secrets")
    client = {"IGNITION_CLIENT_ID": "client", "IGNITION_CLIENT_SECRET": "client-secret"}
    folder.parent.mkdir()
    subprocess.run([script, folder], env={**os.environ, **client}, check=True)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    subprocess.run([script, folder], env=os.environ, check=True)
    expect(before == {path: path.read_bytes() for path in folder.iterdir()}, "it overwrites none")
    # Compose mounts file by file into a folder open to all; here the folder itself is mounted.
    folder.chmod(0o755)
    return folder


def replace_secret(path: Path, old: str, new: str) -> None:
    value = path.read_text()
    expect(old in value, f"{path.name} names the compose file's database")
    path.chmod(0o600)
    path.write_text(value.replace(old, new))
    path.chmod(0o444)


def answer(port: int, path: str, key: str | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
    return connection.getresponse().status


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def expect(fact: object, sentence: str) -> None:
    if not fact:
        sys.exit(f"image-check: not so: {sentence}")
    print(f"  {sentence}", flush=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
