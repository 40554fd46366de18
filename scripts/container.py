"""An image, and a service started from its root file system as an engine would start it.

Read-only, secrets mounted, no capabilities, the image's user; no engine. Part of
``scripts/image-check``, which see.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
# Notes the calls on files that failed. Detached: the service stays our child, under its own id.
TRACE = ["strace", "-D", "-f", "-qq", "-Z", "--seccomp-bpf", "-e", "trace=%file", "-o"]
WRITING = ("O_WRONLY", "O_RDWR", "O_CREAT")


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

    def start(
        self, command: list[str], *, output: int | None = None, trace: Path | None = None
    ) -> subprocess.Popen[bytes]:
        arguments = [str(self.image.root), str(self.secrets), self.image.user]
        arguments += [" ".join(self.tmpfs), str(self.is_read_only)]
        container = ["/usr/bin/unshare", "--mount", "sh", "-euc", CONTAINER, "sh", *arguments]
        return subprocess.Popen(
            [*([*TRACE, str(trace)] if trace else []), *container, *command],
            env={**self.image.environment, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )

    def run(self, *command: str, trace: Path | None = None) -> int:
        return self.start(list(command), trace=trace).wait(60)

    def read(self, *command: str) -> str:
        process = self.start(list(command), output=subprocess.PIPE)
        output, _ = process.communicate(timeout=60)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command, output)
        return output.decode()

    def is_healthy(self) -> bool:
        return self.start(self.image.health_check, output=subprocess.DEVNULL).wait(10) == 0


def read_image(config: Mapping[str, Any], root: Path) -> Image:
    expect("Healthcheck" in config, "the image has a health check")
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


def refused_writes(trace: Path) -> list[str]:
    """What the traced process tried to write and could not."""
    return [
        line
        for line in trace.read_text().splitlines()
        if "= -1 EROFS" in line
        or (("= -1 EACCES" in line or "= -1 EPERM" in line) and any(w in line for w in WRITING))
    ]


def expect(fact: object, sentence: str, found: object = None) -> None:
    if not fact:
        sys.exit(f"image-check: not so: {sentence}" + (f": {found}" if found is not None else ""))
    print(f"  {sentence}", flush=True)
