"""What building an sdist needs, resolved as the set itself is: by uv, from the user's index, wheels alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import requests
from packaging.utils import parse_wheel_filename

from common.errors import LockError
from lockfiles import guard, store
from lockfiles.inputs import SetInput
from lockfiles.model import Artifact, BaseLock, SetLock
from lockfiles.python import index, wheels
from lockfiles.python.cooldown import Window
from lockfiles.sdists.build import Resolve


def resolver(
    wanted: SetInput, base: BaseLock, preferred: Mapping[str, str], window: Window | None, http: requests.Session
) -> Resolve:
    """What resolves the build requirements of a set's sdists, and brings the wheels into the store.

    Args:
        wanted: the set that needs the sdists.
        base: whose Python runs the build.
        preferred: versions by name that are taken where the requirements allow it.
        window: which files are old enough; None for all.
        http: carries the user's authentication and certificates.
    """
    python, glibc = base.version("python3.11"), base.version("libc6")
    tags = wheels.platform_tags(python, glibc)

    def resolve(requires: tuple[str, ...]) -> tuple[Artifact, ...]:
        if not requires:
            return ()
        # A package that comes from a named index for the set comes from there for its builds, too.
        named = tuple(origin for origin in wanted.origins if origin.index)
        asking = replace(wanted, requires=requires, overrides=(), sdists=(), shims=(), origins=named)
        try:
            packages = wheels.resolve(asking, python, glibc, preferred, window)
            found = [wheels.choose(package, tags, f"lockfiles/{wanted.name}.in") for package in packages.values()]
        except LockError as problem:
            what = f"what building an sdist needs does not resolve ({', '.join(requires)}): {problem.what}"
            fix = "state other versions, `build = [...]` under [sdists]; each must have a wheel"
            raise LockError(what, where=f"lockfiles/{wanted.name}.in", fix=fix) from None
        guard.check_malware(((name, str(one["version"])) for name, one in packages.items()), f"lockfiles/{wanted.name}.in")
        store.download(found, index.Locator(http), http)
        return tuple(sorted(found, key=lambda artifact: artifact.file))

    return resolve


def versions(lock: SetLock | None) -> dict[str, str]:
    """The versions of all wheels that built the sdists of a lock."""
    built = [artifact for wheel in lock.wheels for artifact in wheel.build or ()] if lock else []
    return {str(name): str(version) for name, version, *_ in map(parse_wheel_filename, (a.file for a in built))}
