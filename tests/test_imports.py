"""Which module may import which: the order of the stages, the order of the rooms in k8s/, and no cycle anywhere.

Imports inside functions and under TYPE_CHECKING count as well. Each rule is shown to fail on a small made-up tree.
"""

from __future__ import annotations

import ast
import functools
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from common import paths

# A stage imports from itself and from the stages to its right.
STAGES = ("tasks", "k8s", "registry", "smoke", "images", "lockfiles", "oci", "common")
# The same for the rooms of k8s/. Commands are the modules at its root; they and the rooms of ASIDE stand side by side.
ROOMS = ("rollouts", "prepare", "rules", "envs", "objects")
ASIDE = ("training", "single_node")
PROGRAMS = "k8s.pipeline"
# What of common/ lies in the images beside the programs and oci/ (`[[files]]` in images/shared.toml).
SHIPPED = {"common", "common.errors", "common.files"}
# What programs of pods reach beside the standard library, and the package of it that every image holds.
IN_IMAGES = {"yaml": "pyyaml", "urllib3": "urllib3", "requests": "requests", "cryptography": "cryptography"}
IN_IMAGES |= {"llamafactory": "llamafactory", "torch": "torch"}
MOST_PACKAGES, LONGEST_CHAIN = 15, 8

Graph = Mapping[str, frozenset[str]]


def modules(root: Path) -> dict[str, Path]:
    """All product modules by their dotted name."""
    found = {}
    for folder in (*STAGES, "bench"):
        for file in (*(root / folder).rglob("*.py"), *root.glob(f"{folder}.py")):
            parts = file.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported(name: str, file: Path, known: Mapping[str, Path]) -> frozenset[str]:
    """Every module that a file imports: ours by full name, of others the first part."""
    here = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    targets: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                targets.add(inner if inner in known else base)
    ours = {target if target in known else target.partition(".")[0] for target in targets}
    return frozenset(ours - {name})


def graph(root: Path) -> Graph:
    """What each module imports."""
    known = modules(root)
    return {name: imported(name, file, known) for name, file in known.items()}


def stage(module: str) -> str:
    return module.partition(".")[0]


def against_the_stages(imports: Graph) -> Iterator[str]:
    """Imports from an earlier stage; and of bench and tests by anybody but tasks and bench."""
    for module, targets in imports.items():
        for target in sorted(targets):
            here, there = stage(module), stage(target)
            from_above = here in STAGES and there in STAGES and STAGES.index(there) < STAGES.index(here)
            if from_above or (there in ("bench", "tests") and here not in (there, "tasks", "bench")):
                yield f"{module} imports {target}"


def room(module: str) -> int:
    """The place of a module of k8s/ in the order of its rooms; commands and training come before all of them."""
    name = module.split(".")[1]
    return ROOMS.index(name) if name in ROOMS else -1


def against_the_rooms(imports: Graph) -> Iterator[str]:
    """Imports from an earlier room of k8s/, and of a command by anybody in k8s/."""
    for module, targets in imports.items():
        if not module.startswith("k8s.") or module.startswith(PROGRAMS):
            continue
        for target in sorted(targets):
            if not target.startswith("k8s.") or target.startswith(PROGRAMS):
                continue
            same_room = module.split(".")[1] == target.split(".")[1] in ASIDE
            if room(target) < room(module) or (room(target) == -1 and not same_room):
                yield f"{module} imports {target}"


def against_the_programs(imports: Graph) -> Iterator[str]:
    """What the programs of pods reach that no image has, whoever imports it; and what oci imports of ours beside common."""
    reached = [module for module in imports if module.startswith(PROGRAMS)]
    for module in reached:  # Grows while it is gone through.
        for target in sorted(imports[module]):
            if target.startswith((PROGRAMS, "oci")) or target in SHIPPED:
                reached += [target] if target in imports and target not in reached else []
            elif target not in sys.stdlib_module_names and target not in IN_IMAGES:
                yield f"{module} imports {target}"
    for module, targets in imports.items():
        for target in sorted(targets):
            if stage(module) == "oci" and stage(target) in (*STAGES, "bench") and stage(target) not in ("oci", "common"):
                yield f"{module} imports {target}"


def cycle(imports: Graph) -> list[str]:
    """One cycle of modules that import each other; empty where there is none."""
    finished: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return []
        for target in sorted(imports.get(module, ())):
            if target in imports and (closed := visit(target, [*path, module])):
                return closed
        finished.add(module)
        return []

    return next((closed for module in sorted(imports) if (closed := visit(module, []))), [])


def packages(imports: Graph, top: str) -> dict[str, frozenset[str]]:
    """What the packages of a stage import of each other; its own modules at the root are the package `top`."""

    def package(module: str) -> str:
        return module if any(other.startswith(f"{module}.") for other in imports) else module.rpartition(".")[0]

    inside = {module: targets for module, targets in imports.items() if stage(module) == top}
    found: dict[str, set[str]] = {}
    for module, targets in inside.items():
        found.setdefault(package(module), set()).update(package(target) for target in targets if target in inside)
    return {name: frozenset(targets - {name}) for name, targets in found.items()}


def longest_chain(imports: Graph) -> tuple[str, ...]:
    """The longest chain of imports. There must be no cycle."""

    @functools.cache
    def chain(name: str) -> tuple[str, ...]:
        below = [chain(target) for target in sorted(imports[name]) if target in imports]
        return (name, *max(below, key=len, default=()))

    return max(map(chain, sorted(imports)), key=len)


@functools.cache
def ours() -> Graph:
    return graph(paths.ROOT)


def test_imports_run_one_way_through_the_stages() -> None:
    assert list(against_the_stages(ours())) == []


def test_imports_run_one_way_through_the_rooms_of_k8s_and_no_command_imports_another() -> None:
    assert list(against_the_rooms(ours())) == []


def test_programs_of_pods_reach_only_what_their_images_hold() -> None:
    assert list(against_the_programs(ours())) == []
    shipped = tomllib.loads((paths.ROOT / "images" / "shared.toml").read_text())["files"]
    (common,) = [entry["include"] for entry in shipped if entry["from"] == "common"]
    assert {f"common.{name}".removesuffix(".py").removesuffix(".__init__") for name in common} == SHIPPED
    for lock in ("train", "api", "api-cpu"):
        text = (paths.LOCKFILES / f"{lock}.lock").read_text()
        assert [package for package in IN_IMAGES.values() if f'\n"{package}" = ' not in text] == [], lock


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert cycle(ours()) == []


def test_k8s_is_no_deep_tree() -> None:
    rooms = packages(ours(), "k8s")
    assert len(rooms) <= MOST_PACKAGES
    assert cycle(rooms) == []
    assert len(longest_chain(rooms)) <= LONGEST_CHAIN, longest_chain(rooms)


def tree(root: Path, **files: str) -> Graph:
    """The graph of a made-up tree: modules by their dotted name with `__` for the dots."""
    for name, text in files.items():
        file = root.joinpath(*name.split("__")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        for folder in file.relative_to(root).parents[:-1]:
            (root / folder / "__init__.py").touch()
        file.write_text(text)
    return graph(root)


@pytest.mark.parametrize(
    "text",
    [
        "from smoke import ladder",
        "import smoke.ladder",
        "def late():\n    from smoke.ladder import run",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from smoke.ladder import Rung",
        "import tests.suite",
        "from bench import build",
    ],
)
def test_an_import_against_the_order_of_the_stages_is_found(tmp_path: Path, text: str) -> None:
    made = tree(tmp_path, images__build=text, smoke__ladder="from images import build", bench__build="")
    (finding,) = against_the_stages(made)
    assert finding.startswith("images.build imports ")


def test_tasks_may_import_bench_and_every_stage(tmp_path: Path) -> None:
    made = tree(tmp_path, tasks="from bench import build\nfrom oci import layout", bench__build="", oci__layout="import common")
    assert list(against_the_stages(made)) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("k8s__deploy", "from k8s import check"),
        ("k8s__rollouts__apply", "from k8s.check import check"),
        ("k8s__training__submit", "from k8s import check"),
        ("k8s__deploy", "from k8s.training import submit"),
        ("k8s__rules__pods", "from ..prepare import pin"),
        ("k8s__objects__schema", "def late():\n    from k8s.envs.environment import load"),
    ],
)
def test_an_import_against_the_order_of_the_rooms_is_found(tmp_path: Path, module: str, text: str) -> None:
    beside = {"k8s__check": "", "k8s__training__submit": "", "k8s__prepare__pin": "", "k8s__envs__environment": ""}
    made = tree(tmp_path, **{**beside, module: text})
    assert len(list(against_the_rooms(made))) == 1


def test_every_room_may_import_the_programs_and_the_rooms_below_it(tmp_path: Path) -> None:
    made = tree(
        tmp_path,
        k8s__pipeline__step="",
        k8s__objects__pods="from k8s.pipeline import step",
        k8s__training__runs="",
        k8s__training__submit="from k8s.training import runs\nfrom k8s.objects import pods",
    )
    assert list(against_the_rooms(made)) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("k8s__pipeline__fetch", "from k8s.objects import schema"),
        ("k8s__pipeline__fetch", "import docker"),
        ("k8s__pipeline__fetch", "from common import paths"),
        ("oci__layout", "def late():\n    from common.paths import ROOT"),
        ("oci__layout", "import docker"),
        ("oci__push", "from lockfiles import images_lock"),
    ],
)
def test_what_a_pod_does_not_have_is_found(tmp_path: Path, module: str, text: str) -> None:
    beside = {"k8s__objects__schema": "", "common__paths": "", "lockfiles__images_lock": "", "k8s__pipeline__fetch": ""}
    made = tree(tmp_path, **{**beside, "k8s__pipeline__step": "from oci import layout", "oci__layout": "", module: text})
    assert len(list(against_the_programs(made))) == 1


def test_a_pod_has_yaml_the_standard_library_oci_and_errors(tmp_path: Path) -> None:
    text = "import json\nimport yaml\nfrom oci import layout\nfrom common.errors import BuildError\nfrom . import step"
    made = tree(
        tmp_path,
        k8s__pipeline__fetch=text,
        k8s__pipeline__step="",
        oci__layout="from common import files",
        oci__push="from common import run\nimport docker",
        common__errors="",
        common__files="",
        common__run="",
    )
    assert list(against_the_programs(made)) == []


def test_a_cycle_is_found_whatever_hides_it(tmp_path: Path) -> None:
    hidden = "def late():\n    from k8s.c import three"
    made = tree(tmp_path, k8s__a="from k8s import b", k8s__b=hidden, k8s__c="from .a import one")
    assert cycle(made) == ["k8s.a", "k8s.b", "k8s.c", "k8s.a"]


def test_chains_of_packages_are_measured(tmp_path: Path) -> None:
    made = tree(
        tmp_path, k8s__deploy="from k8s.a import x", k8s__a__x="from k8s.b import y", k8s__b__y="", k8s__b__z="import os"
    )
    rooms = packages(made, "k8s")
    assert set(rooms) == {"k8s", "k8s.a", "k8s.b"}
    assert longest_chain(rooms) == ("k8s", "k8s.a", "k8s.b")
