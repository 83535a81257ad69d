"""`invoke lock --check`: whether every lock holds. Asks no network, opens no artifact."""

from __future__ import annotations

from packaging.utils import parse_wheel_filename

from common import paths
from common.errors import LockError
from lockfiles import closure, images_lock, inputs, lockfile, models, policy, toolkit
from lockfiles.model import BaseLock, SetLock
from lockfiles.python import wheels

# What every image promises, and its users' configurations rely on.
PYTHON = "3.11.2"
_RELOCK = "run `invoke lock`"


def check() -> str:
    """Check every lock against its input, its own checksums, the base, its closure, the sets it agrees with, and the policy.

    Returns the outcome in a few words.

    Raises:
        LockError: the first thing that does not hold, with its line.
        UsageError: an input makes no sense.
    """
    base, wanted_base = lockfile.read_base(), inputs.read_base()
    _fresh("base", base.inputs, wanted_base.digest)
    python_is_promised(base)
    closure.check_base(wanted_base, base)
    rules = policy.read()
    policy.check_licences(rules, "base", base.debs)
    for file in sorted(paths.LOCKFILES.glob("*.lock")):
        if file.stem not in {"base", "images", "models", *inputs.set_names()}:
            fix = f"restore {file.stem}.in from git, or remove the lock"
            raise LockError(f"{file.name} has no input", where=paths.shown(file), fix=fix)
    locks = {name: lockfile.read_set(name) for name in inputs.set_names()}
    for name, lock in locks.items():
        wanted = inputs.read_set(name)
        _fresh(name, lock.inputs, wanted.digest)
        fits_base(lock, base)
        closure.check_set(wanted, lock)
        if wanted.agrees:
            closure.check_agreement(wanted, lock, locks[wanted.agrees])
        policy.check_licences(rules, name, lock.wheels)
    toolkit.check()
    models.check()
    images_lock.check()
    return f"every lock fits its input: base, {', '.join(locks)}, toolkit"


def python_is_promised(base: BaseLock) -> None:
    """Check that the base has the Python that the images promise.

    Raises:
        LockError: it has another.
    """
    if base.version("python3.11") != PYTHON:
        raise LockError(
            f"the base has Python {base.version('python3.11')}, the images promise {PYTHON}",
            where=lockfile.place("base", "python3.11"),
            fix="Debian 12 has no other; check apt's sources",
        )


def fits_base(lock: SetLock, base: BaseLock) -> None:
    """Check that the wheels were chosen for this base and can run on it.

    Raises:
        LockError: they were not, or one cannot.
    """
    python, glibc = base.version("python3.11"), base.version("libc6")
    if (lock.python, lock.glibc) != (python, glibc):
        fits = f"was chosen for Python {lock.python}, glibc {lock.glibc}; the base has {python}, {glibc}"
        raise LockError(f"{lock.name}.lock {fits}", where=paths.shown(lockfile.lock_path(lock.name)), fix=_RELOCK)
    runnable = set(wheels.platform_tags(python, glibc))
    for wheel in lock.wheels:
        if not runnable & parse_wheel_filename(wheel.artifact.file)[3]:
            where = lockfile.place(lock.name, wheel.name)
            raise LockError(f"{wheel.artifact.file} does not run on the base", where=where, fix=_RELOCK)


def _fresh(name: str, locked: str, current: str) -> None:
    if locked != current:
        where = paths.shown(lockfile.lock_path(name))
        raise LockError(f"{name}.in changed since it was locked", where=where, fix=_RELOCK)
