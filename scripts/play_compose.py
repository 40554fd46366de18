"""Play a compose file without a Docker engine: part of ``scripts/image-check``, which see.

The database service is an embedded Postgres; every other one runs from the built image.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from check_image import check_image
from container import Image, Service, expect, read_image, refused_writes

from ignition_broker.embedded import EmbeddedPostgres

DATABASE = "db"
# What the user may write, kernel file systems aside.
WRITABLE = """
import os
for folder, folders, files in os.walk("/"):
    if folder == "/":
        folders[:] = set(folders) - {"proc", "sys", "dev"}
    for path in (folder, *(os.path.join(folder, name) for name in files)):
        if os.access(path, os.W_OK) and not os.path.islink(path):
            print(path)
"""


def main(compose_path: Path, image_path: Path, root: Path, work: Path) -> None:
    compose = yaml.safe_load(compose_path.read_text())
    image = read_image(json.loads(image_path.read_text())["Docker"]["config"], root)
    check_image(image)
    secrets = make_secrets(work / "secrets")
    files = {Path(secret["file"]).name for secret in compose["secrets"].values()}
    expect(files == {path.name for path in secrets.iterdir()}, "it writes the file's secrets")
    with database(compose["services"][DATABASE], secrets, work) as address:
        port = free_port()
        replace_secret(secrets / "database_url", f"@{DATABASE}:5432/", f"@{address}/")
        for name in in_order(compose["services"]):
            service = read_service(name, compose, image, secrets, port)
            if "ports" in compose["services"][name]:
                check_rights(service, work / "touch.trace")
                check_service(service, port, work / "serve.trace")
            else:
                expect(service.run(*image.entrypoint, *service.command) == 0, f"{name} ends with 0")
                again = service.run(*image.entrypoint, *service.command)
                expect(again == 0, f"{name} may run again")


def check_rights(service: Service, trace: Path) -> None:
    wrote = service.run("touch", "/refused", trace=trace) == 0
    writable = service.read("python", "-c", WRITABLE).split()
    expect(writable == service.tmpfs, "the user can write to the tmpfs alone", writable)
    expect(not wrote and refused_writes(trace), "an attempt to write elsewhere shows")


def check_service(service: Service, port: int, trace: Path) -> None:
    image = service.image
    expect(not service.is_healthy(), "the health check fails while nothing runs")
    begun = time.monotonic()
    running = service.start([*image.entrypoint, *service.command], trace=trace)
    try:
        while not service.is_healthy() and running.poll() is None:
            if time.monotonic() > begun + 30:
                break
            time.sleep(0.2)
        took = time.monotonic() - begun
        expect(service.is_healthy(), f"the health check passes after {took:.1f} s, traced")
        status = Path(f"/proc/{running.pid}/status").read_text()
        expect(f"Uid:\t{image.user.split(':')[0]}\t" in status, "it runs as the image's user")
        expect("CapPrm:\t0000000000000000" in status, "it has no capabilities")
        expect(answer(port, "/readyz") == 200, "/readyz answers 200")
        expect(answer(port, "/admin/tenants") == 401, "/admin/tenants without a key answers 401")
        key = (service.secrets / "broker_admin_key").read_text()
        expect(answer(port, "/admin/tenants", key) == 200, "and 200 with the key of the secret")
        begun = time.monotonic()
        running.send_signal(image.stop_signal)
        code = running.wait(service.grace_seconds)
        took = time.monotonic() - begun
        expect(code == 0, f"{image.stop_signal.name} ends it with 0 after {took:.1f} s", code)
    finally:
        running.kill()
    expect(not service.is_healthy(), "the health check fails again")
    refused = refused_writes(trace)
    expect(not refused, "the service has made no attempt to write elsewhere", refused)


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


def read_service(
    name: str, compose: Mapping[str, Any], image: Image, secrets: Path, port: int
) -> Service:
    service = compose["services"][name]
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
    expect(
        before == {path: path.read_bytes() for path in folder.iterdir()},
        "make-secrets overwrites nothing",
    )
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


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
