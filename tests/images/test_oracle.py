"""The train image against the reference that BuildKit and uv make of the same wheels: file by file, and as Python sees it.

After the line, which builds the image. The reference's tree is read as it is exported and goes nowhere; what BuildKit keeps to
make it, 15 GB for the train set, is removed again.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import json
import posixpath
import re
import subprocess
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from common import host, paths
from common.errors import BuildError
from common.run import run
from images import receipt, reference, spec
from images.receipt import BuiltImage
from images.spec import ImageSpec
from images.wheels.install import PREFIX, SITE
from lockfiles import lockfile
from lockfiles.debian import rootfs
from oci.layout import Layout
from smoke.machine import engine
from tests.images import oracle, trees
from tests.images.trees import Tree

pytestmark = pytest.mark.engine
ROLE = "train"
FAILURES = tomllib.loads((Path(__file__).parent / "imports.toml").read_text())["failure"]


@dataclass(frozen=True)
class Both:
    """Our image's tree and the reference's."""

    image: ImageSpec
    ours: Tree
    theirs: Tree


def built() -> BuiltImage:
    return next(image for image in receipt.read().images if image.role == ROLE)


@pytest.fixture(scope="module", autouse=True)
def cache_as_before() -> Iterator[None]:
    """Remove in the end what BuildKit keeps of the builds of this module, and nothing else."""
    client = host.engine()
    before = {record["ID"] for record in client.df()["BuildCache"] or ()}
    yield
    # By id it takes a second for each; and a record goes when no other builds on it any more.
    freed = bool(before)
    if not before:
        client.api.prune_builds(all=True)
    while freed:
        records = {record["ID"] for record in client.df()["BuildCache"] or ()} - before
        freed = False
        for record in records:
            # docker-py's types know no filter by id.
            only: Any = {"id": [record]}
            freed |= bool(client.api.prune_builds(filters=only, all=True)["CachesDeleted"])
    client.close()


@pytest.fixture(scope="module")
def both() -> Both:
    """Both trees, read side by side: ours from the layout, the reference's from BuildKit's stream."""
    image, layout = spec.read(ROLE), Layout(receipt.layout())
    root = rootfs.made(lockfile.read_base()).tree
    with (
        reference.context(lockfile.read_set(image.set), image.files) as folder,
        ThreadPoolExecutor(1) as pool,
    ):
        ours = pool.submit(trees.of_image, layout, built().digest, oracle.KEEP, root)
        argv = [str(a) for a in reference.command(image, folder, layout, "type=tar,dest=-", no_cache=True)]
        with (folder / "said").open("wb") as said:
            with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said) as build:
                assert build.stdout is not None
                theirs = trees.of_stream(build.stdout, oracle.KEEP, root)
            assert build.returncode == 0, (folder / "said").read_text()[-4000:]
        return Both(image, ours.result(), theirs)


def test_the_trees_are_equal_but_for_what_is_explained(both: Both) -> None:
    assert len(both.ours.entries) > 40_000
    found = oracle.unexplained(both.ours, both.theirs, "buildkit", image=both.image)
    assert not found, "\n".join(map(str, found[:50]))


def distributions(tree: Tree, folder: Path) -> dict[str, importlib.metadata.Distribution]:
    """What importlib.metadata sees in a tree, by normalised name; its files are written into the folder."""
    for path, data in tree.kept.items():
        if path.startswith(f"{SITE}/"):
            file = folder / path.removeprefix(f"{SITE}/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    return {canonicalize_name(one.metadata["Name"]): one for one in importlib.metadata.distributions(path=[str(folder)])}


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_python_sees_every_locked_distribution_whole(both: Both, side: str, tmp_path: Path) -> None:
    tree: Tree = getattr(both, side)
    found = distributions(tree, tmp_path)
    lock = lockfile.read_set(both.image.set)
    assert {name: one.version for name, one in found.items()} == {wheel.name: wheel.version for wheel in lock.wheels}
    for name, one in found.items():
        assert one.files, name
        for file in one.files:
            path = posixpath.normpath(f"{SITE}/{file}")
            assert path in tree.entries or path.startswith(f"{PREFIX}/.."), f"{name} names {path}, which is not there"
        for point in one.entry_points:
            if point.group in ("console_scripts", "gui_scripts"):
                path = f"{PREFIX}/bin/{point.name}"
                assert tree.entries[path].mode == "0o755", path
                assert tree.kept[path].startswith(b"#!/opt/venv/bin/python\n"), path


def test_every_requirement_is_met_as_pip_check_asks(both: Both, tmp_path: Path) -> None:
    found = distributions(both.ours, tmp_path)
    base = lockfile.read_base()
    environment: dict[str, str] = {
        "implementation_name": "cpython",
        "implementation_version": base.version("python3.11"),
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": base.version("python3.11"),
        "python_version": "3.11",
        "sys_platform": "linux",
    }
    unmet = []
    for name, one in sorted(found.items()):
        for requirement in map(Requirement, one.requires or ()):
            if requirement.marker and not requirement.marker.evaluate({**environment, "extra": ""}):
                continue
            other = found.get(canonicalize_name(requirement.name))
            if other is None or not requirement.specifier.contains(other.version, prereleases=True):
                unmet.append(f"{name} {one.version} wants {requirement}, has {other.version if other else 'none'}")
    assert not unmet, "\n".join(unmet)


def namespaces(tree: Tree) -> set[str]:
    """Top folders of site-packages that hold modules and no `__init__`: PEP 420."""
    tops = {path.removeprefix(f"{SITE}/").partition("/")[0] for path in tree.entries if path.startswith(f"{SITE}/")}
    python = {
        path.removeprefix(f"{SITE}/").partition("/")[0] for path in tree.entries if re.search(r"/[^/]+/.*\.(py|so)$", path)
    }
    inits = {top for top in tops if any(f"{SITE}/{top}/__init__{end}" in tree.entries for end in (".py", ".so"))}
    return {top for top in (tops & python) - inits if top.isidentifier() and tree.entries[f"{SITE}/{top}"].kind == "folder"}


def in_image(*argv: str) -> str:
    """Run a program in the train image, as tightly held as in production; what it said."""
    fit = engine.connect(gpu=False)
    try:
        engine.load(fit, built(), receipt.layout())
        said: bytes = fit.client.containers.run(
            built().digest,
            list(argv),
            remove=True,
            network_mode="none",
            read_only=True,
            tmpfs={"/tmp": ""},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
        )
    finally:
        fit.client.close()
    return said.decode()


def test_namespace_packages_are_importable(both: Both) -> None:
    names = sorted(namespaces(both.ours))
    assert {"mpl_toolkits", "nvidia"} <= set(names)
    script = "import importlib, sys\nfor name in sys.argv[1:]: print(list(importlib.import_module(name).__path__)[0])"
    assert in_image("python", "-c", script, *names).split() == [f"/{SITE}/{name}" for name in names]


def test_every_submodule_is_importable_or_says_what_it_lacks() -> None:
    source = (paths.ROOT / "tests/images/walk.py").read_text()
    said = json.loads(in_image("python", "-c", source, "llamafactory", "torch", "transformers"))
    assert said["imported"] > 4000
    idle, unexplained = list(FAILURES), []
    for module, (kind, message) in said["failures"].items():
        entries = [e for e in FAILURES if fnmatch.fnmatchcase(module, e["module"]) and e["says"] in message]
        idle = [entry for entry in idle if entry not in entries]
        if not entries:
            unexplained.append(f"{module}: {kind}: {message[:300]}")
    assert not unexplained, "\n".join(unexplained)
    assert not idle, f"explains nothing any more: {idle}"


def without_wheels(role: str, layout: Layout, *, no_cache: bool = False) -> dict[str, Any]:
    """The manifest of the reference of an image without any wheel, which takes seconds."""
    image = spec.read(role)
    lock = replace(lockfile.read_set(image.set), wheels=())
    output = f"type=oci,tar=false,dest={layout.root}"
    labels = {"title": image.title}
    with reference.context(lock, image.files) as folder:
        argv = reference.command(image, folder, Layout(receipt.layout()), output, no_cache=no_cache, labels=labels)
        run(argv, error=BuildError)
    (entry,) = json.loads((layout.root / "index.json").read_text())["manifests"]
    return layout.read(entry["digest"])


@pytest.mark.parametrize("role", spec.roles())
def test_the_dockerfile_states_the_configuration_of_the_spec(role: str, tmp_path: Path) -> None:
    image, layout = spec.read(role), Layout(tmp_path)
    config = layout.read(without_wheels(role, layout)["config"]["digest"])["config"]
    assert config.pop("ArgsEscaped", True) is True  # BuildKit's mark for Windows
    assert sorted(config.pop("Env")) == sorted(f"{name}={value}" for name, value in image.env)
    assert config == {
        "User": f"{image.uid}:{image.uid}",
        "WorkingDir": image.workdir,
        "Cmd": list(image.cmd),
        "ExposedPorts": {f"{port}/tcp": {} for port in image.ports},
        "Labels": {"title": image.title},
        "StopSignal": "SIGTERM",
    }


def test_the_reference_built_again_from_nothing_is_the_same(tmp_path: Path) -> None:
    first = without_wheels(ROLE, Layout(tmp_path / "first"))
    assert without_wheels(ROLE, Layout(tmp_path / "second"), no_cache=True) == first
