"""`invoke lock`, `invoke lock --check`, `invoke fetch`: the locks as a whole."""

from __future__ import annotations

import datetime
import hashlib
import json
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from packaging.utils import canonicalize_name, parse_wheel_filename

from common import console, paths
from common.errors import LockError, UsageError
from common.files import write_whole
from lockfiles import debian, index, inputs, model, sdist, store, wheels
from lockfiles.model import Artifact, BaseLock, SetLock, Wheel

# What every image promises, and its users' configurations rely on.
PYTHON = "3.11.2"
_RELOCK = "run `invoke lock`"
_Lock = TypeVar("_Lock", BaseLock, SetLock)


def write_all(upgrade: str = "") -> str:
    """Resolve every input and write every lock; returns the outcome in a few words.

    Python packages keep their locked version where the inputs allow it, and sets agree on a version where they can; Debian's
    follow the mirror, which drops what is superseded. A lock whose content did not change keeps every byte.

    Args:
        upgrade: a package that may move to its newest version, or `all`.

    Raises:
        LockError: an input does not resolve.
        UsageError: an input makes no sense, or no set holds `upgrade`.
        MissingEnvironmentError: no network, no apt.
    """
    before = _locked_versions()
    kept = _kept(before, upgrade)
    with console.step("resolving base.in") as notes:
        wanted = inputs.read_base()
        debs = debian.resolve(wanted)
        notes.append(f"{len(debs)} debs, {console.size(sum(d.artifact.size for d in debs))}")
    base = BaseLock(wanted.digest, _today(), debs)
    _check_python(base)
    locks = []
    for name in inputs.set_names():
        lock = _resolve_set(name, base, {**kept[""], **kept.get(name, {})})
        locks.append(lock)
        kept[""] |= {wheel.name: wheel.version for wheel in lock.wheels}
    with console.step("resolving the toolkit") as notes:
        preferred = _toolkit().read_text() if _toolkit().exists() else ""
        body = wheels.resolve_toolkit(paths.ROOT / "pyproject.toml", preferred, upgrade)
        notes.append(f"{sum(1 for line in body.splitlines() if line[:1].isalnum())} packages")
    # Only now, when everything resolved: a failure above leaves every lock as it was.
    model.write_base(_keep_date(base, model.read_base))
    for lock in locks:
        model.write_set(_keep_date(lock, partial(model.read_set, lock.name)))
    write_whole(_toolkit(), _toolkit_head(body) + body)
    _show_moves(before, _locked_versions())
    return f"locked {', '.join(('base', *inputs.set_names(), 'toolkit'))}"


def check() -> str:
    """Check every lock against its input, its own checksum and the base it was chosen for; asks no network.

    Returns the outcome in a few words.

    Raises:
        LockError: the first lock that does not hold.
        UsageError: an input makes no sense.
    """
    base = model.read_base()
    _fresh("base", base.inputs, inputs.read_base().digest)
    _check_python(base)
    python, glibc = base.version("python3.11"), base.version("libc6")
    runnable = set(wheels.platform_tags(python, glibc))
    for name in inputs.set_names():
        lock, where = model.read_set(name), paths.shown(model.lock_path(name))
        _fresh(name, lock.inputs, inputs.read_set(name).digest)
        if (lock.python, lock.glibc) != (python, glibc):
            fits = f"was chosen for Python {lock.python}, glibc {lock.glibc}; the base has {python}, {glibc}"
            raise LockError(f"{name}.lock {fits}", where=where, fix=_RELOCK)
        for wheel in lock.wheels:
            if not runnable & parse_wheel_filename(wheel.artifact.file)[3]:
                raise LockError(f"{wheel.artifact.file} does not run on the base", where=where, fix=_RELOCK)
    text = _toolkit().read_text() if _toolkit().exists() else ""
    head = "".join(line + "\n" for line in text.splitlines() if line.startswith("# ") and not line.startswith("#  "))
    body = text.removeprefix(head)
    if head != _toolkit_head(body):
        raise LockError("toolkit.txt is stale or was edited by hand", where=paths.shown(_toolkit()), fix=_RELOCK)
    return "every lock fits its input"


def fetch(names: Iterable[str]) -> None:
    """Bring everything that the base and these sets are made of into the store.

    Raises:
        LockError: something is gone or altered.
        MissingEnvironmentError: no network, no disk.
        BuildError: a wheel of ours cannot be made.
    """
    base = model.read_base()
    debian.fetch(base.debs)
    locks = [model.read_set(name) for name in names]
    wanted: list[Artifact] = []
    for lock in locks:
        for wheel in lock.wheels:
            if wheel.sdist and not store.has(wheel.artifact):
                wanted.append(wheel.sdist)
            elif not wheel.sdist and not wheel.shim:
                wanted.append(wheel.artifact)
    with index.session() as http:
        store.download(wanted, index.Locator(http), http)
    for lock in locks:
        sdist.make_missing(base, lock)


def _locked_versions() -> dict[str, dict[str, str]]:
    """What each set has locked, version by package; a set without a good lock has nothing."""
    found: dict[str, dict[str, str]] = {}
    for name in inputs.set_names():
        try:
            found[name] = {wheel.name: wheel.version for wheel in model.read_set(name).wheels}
        except LockError:
            found[name] = {}
    return found


def _kept(before: dict[str, dict[str, str]], upgrade: str) -> dict[str, dict[str, str]]:
    """The versions to keep, by set; under the empty name those of all sets together."""
    if upgrade == "all":
        return {"": {}}
    package = canonicalize_name(upgrade)
    toolkit = _toolkit().read_text() if _toolkit().exists() else ""
    if upgrade and not any(package in versions for versions in before.values()) and f"\n{package}==" not in toolkit:
        raise UsageError(f"no lock holds {upgrade}", where="lockfiles/", fix="name a locked package, or `all`")
    kept = {name: {n: v for n, v in versions.items() if n != package} for name, versions in before.items()}
    return {**kept, "": {n: v for versions in kept.values() for n, v in versions.items()}}


def _show_moves(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> None:
    moves: dict[tuple[str, str, str], list[str]] = {}
    for name in after:
        old, new = before.get(name, {}), after[name]
        for package in sorted(set(old) | set(new)):
            move = (package, old.get(package, "absent"), new.get(package, "gone"))
            if move[1] != move[2]:
                moves.setdefault(move, []).append(name)
    for (package, old_version, new_version), sets in sorted(moves.items()):
        console.info(f"{package}  {old_version} → {new_version}  ({', '.join(sets)})")
    if not moves:
        console.info("no Python package moved")


def _resolve_set(name: str, base: BaseLock, preferred: dict[str, str]) -> SetLock:
    wanted = inputs.read_set(name)
    python, glibc = base.version("python3.11"), base.version("libc6")
    tags, where = wheels.platform_tags(python, glibc), f"lockfiles/{name}.in"
    built = {entry.name: entry for entry in wanted.sdists}
    with console.step(f"resolving {name}.in") as notes:
        packages = wheels.resolve(wanted, python, glibc, preferred)
        chosen = [Wheel(n, str(p["version"]), wheels.choose(p, tags, where)) for n, p in packages.items() if n not in built]
        notes.append(f"{len(packages)} packages, {console.size(sum(w.artifact.size for w in chosen))}")
    for package, version in wanted.shims:
        if package in packages:
            raise LockError(f"{package} is both resolved and a shim", where=where, fix="drop one")
        chosen.append(sdist.shim(package, version))
    lock = SetLock(name, wanted.digest, _today(), python, glibc, tuple(sorted(chosen, key=lambda w: w.name)))
    if built:
        debian.fetch(base.debs)
        backend = sdist.backend_of(lock)
        sources = {n: _source(packages[n]) for n in built if n in packages}
        with index.session() as http:
            store.download([backend, *sources.values()], index.Locator(http), http)
        made = [sdist.lock_built(base, built[n], source, backend) for n, source in sorted(sources.items())]
        lock = replace(lock, wheels=tuple(sorted((*lock.wheels, *made), key=lambda w: w.name)))
    return lock


def _source(package: dict[str, object]) -> Artifact:
    entry = package["sdist"]
    assert isinstance(entry, dict)  # noqa: S101 - PEP 751: a table
    return Artifact(wheels.file_name(entry), int(entry["size"]), str(entry["hashes"]["sha256"]))


def _keep_date(new: _Lock, read: Callable[[], _Lock]) -> _Lock:
    """The new lock with the old one's date, when nothing else changed: a relock that finds nothing new changes no byte."""
    try:
        old = read()
    except LockError:
        return new
    return replace(new, date=old.date) if replace(new, date=old.date) == old else new


def _check_python(base: BaseLock) -> None:
    if base.version("python3.11") != PYTHON:
        raise LockError(
            f"the base has Python {base.version('python3.11')}, the images promise {PYTHON}",
            where="lockfiles/base.lock",
            fix="Debian 12 has no other; check apt's sources",
        )


def _fresh(name: str, locked: str, current: str) -> None:
    if locked != current:
        raise LockError(f"{name}.in changed since it was locked", where=paths.shown(model.lock_path(name)), fix=_RELOCK)


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _toolkit() -> Path:
    return paths.LOCKFILES / "toolkit.txt"


def _toolkit_head(body: str) -> str:
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    asked = json.dumps([project["requires-python"], project["dependencies"], project["optional-dependencies"]])
    return (
        "# Written by `invoke lock` from pyproject.toml. Edit that, not this: `invoke lock --check` refuses a hand edit.\n"
        f"# inputs = sha256:{hashlib.sha256(asked.encode()).hexdigest()}\n"
        f"# checksum = sha256:{hashlib.sha256(body.encode()).hexdigest()}\n"
    )
