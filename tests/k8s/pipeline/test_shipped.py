"""What the images hold for pods: exactly what the programs import, and that with the images' own packages alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from images import spec
from lockfiles import lockfile
from tests.k8s.pipeline.conftest import program, shipped

PROGRAMS = ("step", "check", "download", "train", "register", "promote", "fetch")
# Imports a program in the folder it is shipped in, where no module of a package that some image lacks can be had.
IMPORT = """
import importlib, sys
class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in lacking:
            raise ModuleNotFoundError(name)
program, *lacking = sys.argv[1:]
sys.meta_path.insert(0, Lacking())
importlib.import_module(f"pinwheel_pipeline.{program}")
"""


def modules(root: Path) -> dict[str, Path]:
    """Every module that is shipped, by its name."""
    found = {}
    for file in root.rglob("*.py"):
        parts = file.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported(name: str, file: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a module imports, wherever in it, with the packages that they are in."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    ours = {one for one in found if one in known or one.partition(".")[0] in {"oci", "common", "k8s", "pinwheel_pipeline"}}
    # `from package import name` may mean a module or what a module holds.
    ours = {one if one in known or one.rpartition(".")[0] not in known else one.rpartition(".")[0] for one in ours}
    return ours | {one.rpartition(".")[0] for one in ours if "." in one}


def test_exactly_what_the_programs_import_is_shipped() -> None:
    known = modules(shipped())
    waiting, needed = [f"pinwheel_pipeline.{name}" for name in PROGRAMS], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            assert name in known, f"{name} is imported and not shipped: mend [[files]] in images/shared.toml"
            waiting += imported(name, known[name], known)
    assert set(known) == needed, "shipped and imported by nobody"


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_imports_with_the_packages_that_every_image_holds(name: str) -> None:
    sets = [lockfile.read_set(spec.read(role).set) for role in spec.roles()]
    held = set[str].intersection(*({str(wheel.name) for wheel in lock.wheels} for lock in sets))
    owners = metadata.packages_distributions()
    lacking = [module for module, names in owners.items() if not {canonicalize_name(owner) for owner in names} & held]
    assert "docker" in lacking
    argv = [sys.executable, "-c", IMPORT, name, *sorted(lacking)]
    done = subprocess.run(argv, cwd=shipped(), env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_starts_where_it_is_shipped_and_tells_how_it_is_called(name: str) -> None:
    with program(name, "--help") as process:
        told, _ = process.communicate(timeout=120)
    assert (process.returncode, told.startswith("usage: ")) == (0, True), told
