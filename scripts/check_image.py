"""What the built image holds and what it must not: part of ``scripts/image-check``, which see."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from container import Image, expect

HOME = "opt/ignition-broker"
USER = "10001:10001"
INSTALLERS = r"pip|pipx|uv|easy_install|wheel|hatch|hatchling|virtualenv"
COMPILERS = r"gcc|g\+\+|cc|c\+\+|cpp|clang|rustc|cargo|go|as|ld|ar|make|cmake|ninja|meson"
TOOL = re.compile(rf"(\w+-linux-gnu-)?({INSTALLERS}|{COMPILERS})[\d.-]*")
PACKAGE = re.compile(r"(ensurepip|pip|setuptools|wheel|hatchling)|.*\.whl")


def check_image(image: Image) -> None:
    expect(image.user == USER, f"the user is {image.user}, by number")
    tools = found(commands(image.root), TOOL)
    expect(not tools, "no compiler and no installer is there", tools)
    packages = found(python_packages(image.root), PACKAGE)
    expect(not packages, "no Python package of that kind either", packages)
    expect(not (image.root / "build").exists(), "nothing of the build is left")
    home = image.root / HOME
    code = list(home.glob("lib/python3*/site-packages/ignition_broker/**/*.py"))
    bytecode = {path.name.split(".")[0] for path in home.rglob("ignition_broker/**/*.pyc")}
    expect(code and {path.stem for path in code} <= bytecode, "the service's bytecode is there")
    files = [path.lstat() for path in (home, *home.rglob("*")) if not path.is_symlink()]
    expect(all(file.st_uid == 0 for file in files), "the service's own files belong to root")
    expect(not any(file.st_mode & 0o022 for file in files), "and nobody else can write them")
    total = sum(file.st_blocks for file in files) * 512 / 1e6
    expect(total < 200, f"they take {total:.0f} MB of disk")


def found(paths: Iterable[Path], name: re.Pattern[str]) -> list[str]:
    return [str(path) for path in paths if name.fullmatch(path.name)]


def commands(root: Path) -> Iterator[Path]:
    return (path for path in walk(root) if path.parent.name in {"bin", "sbin"})


def python_packages(root: Path) -> Iterator[Path]:
    """Whatever Python could import as a package, and every wheel."""
    for path in walk(root):
        if path.suffix == ".whl" or (path / "__init__.py").exists():
            yield path


def walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        yield from (Path(folder, name) for name in (*folders, *files))
