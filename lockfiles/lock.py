"""`invoke lock`: resolves every input and writes every lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from typing import Any, TypeVar

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from common import console
from common.errors import LockError, MissingEnvironmentError, PinwheelError, UsageError
from common.offline import offline
from lockfiles import changes, check, closure, guard, inputs, licences, lockfile, models, policy, store, toolkit
from lockfiles.audit import fixing
from lockfiles.audit.locked import TOOLKIT
from lockfiles.changes import Locked
from lockfiles.debian import resolver
from lockfiles.fixes import DEBIAN
from lockfiles.inputs import BaseInput, SetInput
from lockfiles.keeping import Keeping
from lockfiles.model import Artifact, BaseLock, SetLock
from lockfiles.models.lockfile import ModelsLock
from lockfiles.policy import Policy
from lockfiles.python import cooldown, gpu, index, metadata, resolution_checks, shim, wheels
from lockfiles.python.direct_references import bring
from lockfiles.python.solver import UnresolvedError
from lockfiles.sdists import build, requirements

_Lock = TypeVar("_Lock", BaseLock, SetLock)


@dataclass(frozen=True, slots=True)
class _Resolved:
    """What every lock is to hold."""

    base: BaseLock
    sets: Mapping[str, SetLock]
    toolkit: str
    models: ModelsLock


def write_all(upgrade: str = "") -> tuple[Locked, Locked]:
    """Resolve every input and write every lock; returns what was locked before, and now.

    Only what was edited or asked for is resolved, and there too a locked version stays where the inputs allow it; sets that
    agree share versions. A lock whose content did not change keeps every byte.

    Args:
        upgrade: a package or model that may move to its newest version, `debian` for the debs, `all`, or `vulnerable`: what
            has a known defect moves to a version that fixes it.

    Raises:
        LockError: an input does not resolve, sets disagree, or the policy forbids a licence.
        UsageError: an input makes no sense, or no set holds `upgrade`.
        MissingEnvironmentError: no network, no apt; or no advisory data, for `vulnerable`.
    """
    # A damaged lock is not taken for none: everything it held would move.
    before = changes.read(strict=True)
    # A model that makes no sense is refused here, before any set is resolved.
    _known(upgrade, before)
    rules = policy.read()
    set_inputs = {name: inputs.read_set(name) for name in inputs.set_names()}

    @cache
    def days() -> int:
        probe = cooldown.probe(set_inputs.values())
        return rules.cooldown_days if not offline() and cooldown.possible(probe, rules.cooldown_days) else 0

    pins = [text for asking in set_inputs.values() for text in (*asking.requires, *asking.overrides)]
    named = {canonicalize_name(upgrade)} - {"", "all", DEBIAN, fixing.WORD}
    keeping = Keeping(upgrade, days, before, cooldown.asked_for(pins) | named)
    if upgrade == fixing.WORD:
        keeping = replace(keeping, upgrade="")
        fixes = fixing.find(set_inputs, before, days())
        resolved, refused = fixing.as_many(fixes, lambda some: _resolve_all(replace(keeping, fixes=some), set_inputs, rules))
    else:
        resolved = _resolve_all(keeping, set_inputs, rules)
    _write(resolved)
    after = changes.read(strict=True)
    if upgrade == fixing.WORD:
        fixing.tell_left(after, fixes, refused)
    return before, after


def _resolve_all(keeping: Keeping, set_inputs: Mapping[str, SetInput], rules: Policy) -> _Resolved:
    """Resolve every input; writes nothing."""
    base = _resolve_base(keeping.before.base, keeping.upgrade, keeping.fixes.debs)
    policy.check_licences(rules, "base", base.debs)
    locks: dict[str, SetLock] = {}
    told = offline()
    # A set that agrees with another comes after it.
    for name in sorted(set_inputs, key=lambda n: (_depth(set_inputs, n), n)):
        leader = locks.get(set_inputs[name].agrees)
        unmoved = keeping.unmoved(set_inputs[name], base, leader)
        if unmoved is None and not told:
            resolution_checks.tell_unasked(set_inputs.values())
            told = True
        locks[name] = unmoved or resolve_set(set_inputs[name], base, keeping, leader)
        closure.check_set(set_inputs[name], locks[name])
        policy.check_licences(rules, name, locks[name].wheels)
    for name, lock in locks.items():
        if set_inputs[name].agrees:
            _agree(set_inputs[name], lock, locks[set_inputs[name].agrees])
    body = toolkit.resolve(keeping.upgrade, keeping.days, keeping.fixes.targets.get(TOOLKIT))
    if why := guard.check_malware(toolkit.versions(body).items(), "pyproject.toml"):
        console.warn(f"nobody looked for malware: {why}")
    return _Resolved(base, locks, body, models.resolve_all(keeping.upgrade))


def _write(resolved: _Resolved) -> None:
    # Only now, when everything resolved: a failure above leaves every lock as it was.
    lockfile.write_base(_keep_date(resolved.base, lockfile.read_base))
    for name, lock in resolved.sets.items():
        lockfile.write_set(_keep_date(lock, partial(lockfile.read_set, name)))
    toolkit.write(resolved.toolkit)
    models.write(resolved.models)


def _known(upgrade: str, before: Locked) -> None:
    """Refuse a name that no lock holds."""
    name = canonicalize_name(upgrade)
    held = {wheel.name for lock in before.sets.values() for wheel in lock.wheels} | set(toolkit.versions())
    if upgrade not in ("", "all", DEBIAN, fixing.WORD, *_debs(before.base), *models.names()) and name not in held:
        fix = f"name a locked package or model, `{DEBIAN}` for all Debian packages, `all`, or `{fixing.WORD}`"
        raise UsageError(f"no lock holds {upgrade}", where="lockfiles/", fix=fix)


def _debs(base: BaseLock | None) -> set[str]:
    return {deb.name for deb in base.debs} if base else set()


def _resolve_base(before: BaseLock | None, upgrade: str, fixes: frozenset[str] = frozenset()) -> BaseLock:
    """The base: as it was locked where neither base.in nor the command nor a known defect asks for more, else resolved."""
    base_in = inputs.read_base()
    moving = (fixes | {upgrade}) & _debs(before)
    edited, named = before is None or before.inputs != base_in.digest, upgrade == DEBIAN or bool(moving)
    if offline() and (edited or named):
        # Without a lock, its reader says it better.
        lockfile.read_base()
        what = f"upgrading {upgrade or DEBIAN}" if named else "base.in changed, and resolving it"
        raise MissingEnvironmentError(f"{what} needs Debian's mirror", fix="run without --offline")
    if before and not edited and not named and (upgrade != "all" or offline()):
        _tell_newer(base_in, before)
        return before
    locked = before.debs if before and upgrade not in ("all", DEBIAN) else ()
    debs, newer = resolver.resolve(base_in, locked, moving)
    _tell_count(newer)
    # Their licences stand in the packages themselves.
    resolver.fetch(debs)
    known = {deb.artifact.sha256: deb.licence for deb in before.debs} if before and upgrade != "all" else {}
    by_name = {deb.name: known[deb.artifact.sha256] for deb in debs if known.get(deb.artifact.sha256)}
    if len(by_name) < len(debs):
        # All of them are read: the documentation of one package may lie in another.
        with console.step("reading the debs' licences"):
            by_name = licences.of_debs({deb.name: store.verified(deb.artifact) for deb in debs})
    base = BaseLock(base_in.digest, toolkit.today(), tuple(replace(deb, licence=by_name[deb.name]) for deb in debs))
    check.python_is_promised(base)
    closure.check_base(base_in, base)
    return base


def _tell_newer(base_in: BaseInput, base: BaseLock) -> None:
    """Say how many debs could move; that nobody knows is no reason to fail, since nothing is to move."""
    if offline():
        return
    try:
        newer = resolver.newer(base_in, base.debs)
    except PinwheelError as problem:
        console.warn(f"whether there are newer Debian packages is not known: {problem.line()}")
    else:
        _tell_count(newer)


def _tell_count(newer: int) -> None:
    if newer:
        text = "1 newer Debian package is there" if newer == 1 else f"{newer} newer Debian packages are there"
        console.info(f"{text}: `invoke lock --upgrade {DEBIAN}` takes {'it' if newer == 1 else 'them'}")


def resolve_set(set_input: SetInput, base: BaseLock, keeping: Keeping, leader: SetLock | None) -> SetLock:
    """Resolve one set and describe each of its wheels; writes no lock.

    Args:
        set_input: its input.
        base: what it runs on.
        keeping: which versions stay.
        leader: the set it agrees with, resolved.

    Raises:
        LockError: it does not resolve, or a package cannot be locked.
        MissingEnvironmentError: the index does not answer.
        BuildError: a package that is published as source does not build.
    """
    python, glibc = base.version("python3.11"), base.version("libc6")
    tags, where = wheels.platform_tags(python, glibc), f"lockfiles/{set_input.name}.in"
    built = {entry.name: entry for entry in set_input.sdists}
    own = {name for name, _ in set_input.differs}
    shared = [wheel for wheel in leader.wheels if wheel.name not in own] if leader else []
    led = {wheel.name: wheel.version for wheel in shared}
    kept = keeping.wheels(set_input.name)
    with index.session() as http:
        direct = bring(set_input, tags, kept, http)
    free = {canonicalize_name(keeping.upgrade), *direct}
    resolution_checks.tell_unmet(set_input, python)
    with console.step(f"resolving {set_input.name}.in") as notes:
        preferred, window = {**keeping.versions(set_input.name), **led}, keeping.window(set_input)
        targets = keeping.targets(set_input.name)
        solve = partial(wheels.resolve, set_input, python, glibc, preferred, direct=direct, asked=keeping.asked)
        solve = partial(solve, constraints=[target.constraint for target in targets.values()])
        staying = keeping.held(set_input.name) | {package: target.version for package, target in targets.items()}
        try:
            packages = solve(window)
        except UnresolvedError as problem:
            resolution_checks.check_lacking(set_input, problem)
            raise
        while window and (narrower := window.narrowed(packages, staying, keeping.asked)) != window:
            window = narrower
            packages = solve(window)
        plain = {name: package for name, package in packages.items() if name not in built}
        chosen = resolution_checks.choose(plain, tags, set_input, shared, kept, keeping.known(), free)
        resolution_checks.check_sources(packages, keeping.known(), free)
        notes.append(f"{len(packages)} packages, {console.size(sum(w.artifact.size for w in chosen))}")
    elsewhere = {origin.name for origin in set_input.origins}
    # Before any source is built.
    guard.check_malware(((name, str(one["version"])) for name, one in packages.items() if name not in elsewhere), where)
    if not packages:
        raise LockError(f"{set_input.name}.in asks for nothing on the image's platform", where=where, fix="mend its markers")
    for name, package in packages.items():
        if name in built and str(package["version"]) != built[name].version:
            what = f"{name} {package['version']} was chosen, [sdists.{name}] describes {built[name].version}"
            raise LockError(what, where=where, fix="describe the version that is meant")
    for shimmed, version in set_input.shims:
        if shimmed in packages:
            raise LockError(f"{shimmed} is both resolved and a shim", where=where, fix="drop one")
        chosen.append(shim.make(shimmed, version))
    with index.session() as http:
        if not offline():
            resolution_checks.check_namesakes(set_input, set(packages) - set(direct), http)
            held = keeping.held(set_input.name)
            moved = {name for name, one in packages.items() if held.get(name) != str(one["version"])} - set(direct)
            resolution_checks.check_status(set_input, moved, http)
        locate = index.Locator(http)
        lock = SetLock(
            set_input.name, set_input.digest, toolkit.today(), python, glibc, tuple(sorted(chosen, key=lambda w: w.name))
        )
        if built:
            resolver.fetch(base.debs)
            sources = {n: _source(packages[n], where) for n in built if n in packages}
            store.download(sources.values(), locate, http)
            # What is built against a package of the set, is built against the set's own version of it.
            same = requirements.versions(keeping.before.sets.get(set_input.name)) | {w.name: w.version for w in lock.wheels}
            resolve = requirements.resolver(set_input, base, same, window, http)
            made = [build.lock_built(base, built[n], source, resolve) for n, source in sorted(sources.items())]
            made = [replace(w, commit=direct[w.name].commit, tree=direct[w.name].tree) if w.name in direct else w for w in made]
            lock = replace(lock, wheels=tuple(sorted((*lock.wheels, *made), key=lambda w: w.name)))
        known = metadata.read_all([wheel.artifact for wheel in lock.wheels], locate, http)
        asked = gpu.needs(lock.wheels, locate, http)
    policy.check_startup(lock.wheels, {digest: one.startup for digest, one in known.items()}, where)
    by_name = {wheel.name: known[wheel.artifact.sha256] for wheel in lock.wheels}
    resolution_checks.check_identity(lock.wheels, by_name)
    resolution_checks.check_extras(set_input, {wheel.name: wheel.version for wheel in lock.wheels}, by_name, python)
    overrides = metadata.Overrides(set_input.overrides, python)
    needs = metadata.needs(map(Requirement, set_input.requires), by_name, python, overrides)
    described = [
        replace(wheel, needs=needs[wheel.name], licence=licence(about.text, tuple(about.licences.items())))
        for wheel in lock.wheels
        for about in (by_name[wheel.name],)
    ]
    return replace(lock, wheels=tuple(described), gpu=asked)


@lru_cache(maxsize=4096)
def licence(text: str, texts: tuple[tuple[str, str], ...]) -> str:
    """The licence of a wheel; kept, because the sets share most of their wheels."""
    return licences.of_metadata(text, dict(texts))


def _agree(set_input: SetInput, lock: SetLock, leader: SetLock) -> None:
    closure.check_agreement(set_input, lock, leader)
    stale = {name for name, _ in set_input.differs} - {name for name, _, _ in closure.differences(lock, leader)}
    for name in sorted(stale):
        console.warn(f"{set_input.name} and {leader.name} agree on {name}: drop it from [agrees.except] in {set_input.name}.in")


def _depth(set_inputs: Mapping[str, SetInput], name: str) -> int:
    """How many sets stand above this one in its chain of `agrees`."""
    depth, at = 0, name
    while set_inputs[at].agrees:
        depth, at = depth + 1, set_inputs[at].agrees
        if depth > len(set_inputs):
            raise UsageError(f"{name} agrees with itself in a circle", where=f"lockfiles/{name}.in", fix="drop one `with`")
    return depth


def _source(package: Mapping[str, Any], where: str) -> Artifact:
    if "sdist" not in package:
        name = package["name"]
        what = f"{name} {package['version']} has no source archive, only wheels"
        raise LockError(what, where=where, fix=f"drop [sdists.{name}]: a wheel is taken as it is")
    return wheels.artifact(package["sdist"])


def _keep_date(new: _Lock, read: Callable[[], _Lock]) -> _Lock:
    """The new lock with the old one's date, when nothing else changed: a relock that finds nothing new changes no byte."""
    try:
        old = read()
    except LockError:
        return new
    return replace(new, date=old.date) if replace(new, date=old.date) == old else new
