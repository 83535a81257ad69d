"""Python sets: resolving with uv, and choosing for each package the one wheel file that the image can run.

uv writes PEP 751 ("pylock.toml") with every file's size and sha256; what it says of locations is dropped.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename
from uv import find_uv_bin

from common import offline
from common.errors import LockError
from lockfiles.inputs import SetInput
from lockfiles.model import Artifact
from lockfiles.python import index, metadata, settings, solver, sources
from lockfiles.python.cooldown import Window
from lockfiles.python.direct_references import Direct
from lockfiles.python.remote import NoRangesError, RemoteFile
from lockfiles.python.settings import Index

_LEGACY = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}


def platform_tags(python: str, glibc: str) -> tuple[Tag, ...]:
    """The wheel tags an x86-64 image with this CPython and glibc runs, best first (PEP 425, 600).

    Args:
        python: `3.11.2`.
        glibc: `2.36`.
    """
    major, minor = (int(part) for part in glibc.split(".")[:2])
    platforms: list[str] = []
    for older in range(minor, 4, -1):
        platforms.append(f"manylinux_{major}_{older}_x86_64")
        if alias := _LEGACY.get((major, older)):
            platforms.append(f"{alias}_x86_64")
    platforms.append("linux_x86_64")
    version = tuple(int(part) for part in python.split(".")[:2])
    abi = "cp" + "".join(map(str, version))
    return (*cpython_tags(version, [abi], platforms), *compatible_tags(version, abi, platforms))


def resolve(
    wanted: SetInput,
    python: str,
    glibc: str,
    preferred: Mapping[str, str],
    window: Window | None = None,
    direct: Mapping[str, Direct] | None = None,
    asked: Collection[str] | None = None,
    *,
    constraints: Collection[str] = (),
    alone: bool = False,
) -> dict[str, dict[str, Any]]:
    """Resolve a set to exact packages; the result is uv's PEP 751 tables by normalised name.

    Args:
        wanted: the set.
        python: the base's version.
        glibc: the base's version.
        preferred: versions by name that are kept where the requirements allow it.
        window: which files are old enough; default all.
        direct: what comes from no index.
        asked: packages of which a release may be taken that its authors withdrew; default any, and nothing is said.
        constraints: requirements that hold for what comes in, and bring nothing.
        alone: without what the packages ask for.

    Raises:
        LockError: the requirements cannot all hold; with the resolver's explanation. Or a release was withdrawn.
        MissingEnvironmentError: the index does not answer.
    """
    direct = direct or {}
    indexes = {o.name: settings.named(o.index) for o in wanted.origins if o.index and not offline.offline()}
    indexes = {name: one for name, one in indexes.items() if one != settings.default()}
    overridden = {canonicalize_name(Requirement(text).name) for text in wanted.overrides} & set(indexes)
    if overridden and not alone:
        direct = {**direct, **_settled(wanted, overridden, python, glibc, preferred, window)}
    with tempfile.TemporaryDirectory(prefix="pinwheel-resolve-") as scratch:
        here = Path(scratch)
        stand_ins = {name: one.stand_in(here).as_uri() for name, one in direct.items()}
        requires = [_at(line, stand_ins) for line in wanted.requires]
        if indexes:
            # Only here may a package be bound to an index (uv's documentation, "Package sources").
            (here / "pyproject.toml").write_text(_project(requires, indexes))
        else:
            (here / "set.in").write_text("".join(f"{line}\n" for line in requires))
        (here / "overrides.in").write_text("".join(f"{_at(line, stand_ins)}\n" for line in wanted.overrides))
        stated = [
            f"{{ name = {json.dumps(s.name)}, version = {json.dumps(s.version)}, requires-dist = {json.dumps(s.requires)} }}"
            for s in wanted.sdists
            if s.name not in direct
        ]
        (here / "uv.toml").write_text(f"dependency-metadata = [{', '.join(stated)}]\n")
        # Without --python, uv looks through every interpreter of the machine first.
        argv: list[str | Path] = [find_uv_bin(), "pip", "compile", "--python", sys.executable]
        argv += ["--config-file", here / "uv.toml"]
        argv += ["--python-version", python, "--python-platform", f"x86_64-manylinux_{glibc.replace('.', '_')}"]
        # What stands in the output file already, uv prefers.
        packages = [
            f"\n[[packages]]\nname = {json.dumps(n)}\nversion = {json.dumps(v)}\n" for n, v in sorted(preferred.items())
        ]
        if packages:
            (here / "pylock.toml").write_text('lock-version = "1.0"\ncreated-by = "pinwheel"\n' + "".join(packages))
        # A version other than the stated one would be built here, and now, to be asked what it needs.
        bound = [*constraints, *(f"{s.name}=={s.version}" for s in wanted.sdists if s.name not in direct)]
        (here / "constraints.in").write_text("".join(f"{line}\n" for line in bound))
        argv += ["--constraint", here / "constraints.in"]
        argv += ["--override", here / "overrides.in", "--format", "pylock.toml", "--output-file", here / "pylock.toml"]
        # No code of a package runs while resolving; sources are built later, without network, in the base image.
        for sdist in wanted.sdists:
            argv += ["--no-binary", sdist.name]
        argv += window.options() if window else []
        argv += ["--no-deps"] if alone else []
        argv += ["--only-binary", ":all:", here / ("pyproject.toml" if indexes else "set.in")]
        with sources.configured(tuple(indexes.values())) as source:
            said = solver.run_uv(argv, source, f"{wanted.name}.in does not resolve", f"lockfiles/{wanted.name}.in")
        if asked is not None:
            solver.tell_withdrawn(said, asked, f"lockfiles/{wanted.name}.in")
        body = tomllib.loads((here / "pylock.toml").read_text())
    files = [f for package in body["packages"] for f in (*package.get("wheels", []), package.get("sdist")) if f]
    for entry in files:
        if known := source.files.get(file_name(entry)):
            entry |= {"size": known.size, "hashes": {"sha256": known.sha256}}
    found = {str(canonicalize_name(package["name"])): package for package in body["packages"]}
    return {name: direct[name].table() if name in direct else package for name, package in found.items()}


def _settled(
    wanted: SetInput, names: Collection[str], python: str, glibc: str, preferred: Mapping[str, str], window: Window | None
) -> dict[str, Direct]:
    """Packages that have both an override and an index of their own; uv would look for the override on the default index."""
    lines = tuple(text for text in wanted.overrides if canonicalize_name(Requirement(text).name) in names)
    asking = replace(wanted, requires=lines, overrides=(), sdists=())
    tags = platform_tags(python, glibc)
    found = resolve(asking, python, glibc, preferred, window, alone=True)
    files = {name: choose(package, tags, f"lockfiles/{wanted.name}.in") for name, package in found.items()}
    with index.session() as http:
        known = metadata.read_all(files.values(), index.Locator(http), http)
    return {name: Direct(name, str(found[name]["version"]), file, known[file.sha256].text) for name, file in files.items()}


def _at(line: str, places: Mapping[str, str]) -> str:
    """A requirement with the place of its package, where that is known."""
    one = Requirement(line)
    place = places.get(canonicalize_name(one.name))
    if place is None:
        return line
    extras = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
    return f"{one.name}{extras} @ {place}" + (f" ; {one.marker}" if one.marker else "")


def _project(requires: list[str], indexes: Mapping[str, Index]) -> str:
    lines = ["[project]", f"name = {json.dumps(solver.PROJECT)}", 'version = "0"', f"dependencies = {json.dumps(requires)}"]
    lines += ["[tool.uv.sources]"] + [f"{name} = {{ index = {json.dumps(one.name)} }}" for name, one in indexes.items()]
    for one in dict.fromkeys(indexes.values()):
        lines += ["[[tool.uv.index]]", f"name = {json.dumps(one.name)}", f"url = {json.dumps(one.url)}", "explicit = true"]
    return "\n".join(lines) + "\n"


def resolve_toolkit(
    pyproject: Path, preferred: str, upgrade: Collection[str], window: Window | None = None, asked: Collection[str] = ()
) -> str:
    """Resolve Pinwheel's own dependencies, for every platform, as requirements with hashes.

    Args:
        pyproject: names the dependencies.
        preferred: requirements whose versions are kept where possible; may be empty.
        upgrade: requirements of packages that may move, or `all`.
        window: which files are old enough; default all.
        asked: packages of which a release may be taken that its authors withdrew.

    Raises:
        LockError, MissingEnvironmentError: as `resolve`.
    """
    with tempfile.TemporaryDirectory(prefix="pinwheel-resolve-") as scratch:
        target = Path(scratch) / "toolkit.txt"
        target.write_text(preferred)
        argv: list[str | Path] = [find_uv_bin(), "pip", "compile", "--no-config", "--universal", "--python-version", "3.11"]
        argv += ["--upgrade"] if "all" in upgrade else [f"--upgrade-package={one}" for one in sorted(upgrade)]
        argv += window.options() if window else []
        argv += ["--extra", "test", "--generate-hashes", "--no-header", "--output-file", target, pyproject]
        with sources.configured() as source:
            said = solver.run_uv(argv, source, "pyproject.toml does not resolve", "pyproject.toml")
        solver.tell_withdrawn(said, asked, "pyproject.toml")
        # uv's "via" comments name the project by its path when it has one; only the package names are kept.
        return re.sub(r"\(\S*pyproject\.toml\)", "(pyproject.toml)", target.read_text())


def choose(package: dict[str, Any], tags: Iterable[Tag], where: str, kept: Iterable[Collection[str]] = ()) -> Artifact:
    """The best wheel of a resolved package for these tags.

    Args:
        package: uv's PEP 751 table.
        tags: that the base runs, best first.
        where: the input, for messages.
        kept: sha256 of wheels that are taken, if one of them fits, rather than one that was published since; the first
            collection that has one decides.

    Raises:
        LockError: it has none; a source-only package must be named under [sdists].
    """
    rank = {tag: number for number, tag in enumerate(tags)}
    fitting = []
    for wheel in package.get("wheels", []):
        file = file_name(wheel)
        _, _, build, wheel_tags = parse_wheel_filename(file)
        best = min((rank[tag] for tag in wheel_tags if tag in rank), default=None)
        if best is not None:
            fitting.append((best, build, file, wheel))
    if not fitting:
        raise LockError(
            f"{package['name']} {package['version']} has no wheel that the base can run",
            where=where,
            fix=f"name it under [sdists.{package['name']}] to build it from source, or pin another version",
        )
    # Of equal tags the highest build wins; none is lower than any (binary distribution format, "File name convention").
    fitting.sort(key=lambda item: (-item[0], item[1]))
    for digests in kept:
        for _, _, _, wheel in fitting:
            if wheel.get("hashes", {}).get("sha256") in digests:
                return artifact(wheel)
    return artifact(fitting[-1][3])


def artifact(entry: dict[str, Any]) -> Artifact:
    """What a PEP 751 file entry names.

    Raises:
        LockError: the index gives no sha256 for it.
        MissingEnvironmentError: the index gives no size, and does not answer for the file.
    """
    file, sha256 = file_name(entry), entry.get("hashes", {}).get("sha256")
    if not sha256:
        raise LockError(f"your index gives no sha256 for {file}", fix="use an index that does (PEP 503)")
    if "size" not in entry:
        # HTML pages hold none (PEP 503).
        try:
            with index.session() as http, RemoteFile(http, str(entry["url"])) as remote:
                return Artifact(file, remote.size, str(sha256))
        except NoRangesError as problem:
            if problem.size is None:
                raise
            return Artifact(file, problem.size, str(sha256))
    return Artifact(file, int(entry["size"]), str(sha256))


def file_name(entry: dict[str, Any]) -> str:
    """A PEP 751 file entry's name: given, or the last part of its address."""
    return str(entry.get("name") or unquote(str(entry.get("url") or entry["path"]).rpartition("/")[2].partition("#")[0]))
