"""What stops a lock before anything of it is built or written: malware, and code that would run at each start of Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from common.errors import LockError, MissingEnvironmentError
from lockfiles import policy
from lockfiles.audit import locked, run
from lockfiles.audit.data import Index
from lockfiles.model import Wheel


def check_malware(versions: Iterable[tuple[str, str]], where: str) -> str:
    """Refuse releases of the public index that the advisory data calls malware; VEX excuses none.

    Args:
        versions: names and versions of packages of Python.
        where: the input that asks for them.

    Returns:
        why nobody could look; empty where somebody did.

    Raises:
        LockError: there is such a release; nothing was written.
    """
    try:
        with Index() as index:
            packages = sorted({locked.python(name, version) for name, version in versions})
            found = [one for package in packages for one in run.defects(index, package) if one.severity == "malware"]
    except MissingEnvironmentError as problem:
        return problem.line()
    if found:
        told = ", ".join(f"{one.package} ({one.ids[0]})" for one in found)
        name = found[0].package.shown
        fix = f"take another release of {name}, `invoke lock --upgrade vulnerable` looks for one; nothing was written"
        raise LockError(f"malware: {told}", where=where, fix=fix)
    return ""


def check_startup(wheels: Iterable[Wheel], found: Mapping[str, Mapping[str, str]], where: str) -> None:
    """Refuse code that runs at each start of Python and that `policy.toml` does not allow.

    Args:
        wheels: of a lock.
        found: by sha256 of the wheel, the sha256 of such files by their path.
        where: the input that asks for the wheels.

    Raises:
        LockError: there is such code; nothing was written.
    """
    allowed = {(one.package, one.file, one.sha256) for one in policy.read().startup}
    for wheel in wheels:
        for file, sha256 in sorted(found.get(wheel.artifact.sha256, {}).items()):
            if (wheel.name, file, sha256) not in allowed:
                what = f"{wheel.name} {wheel.version} brings code that runs at each start of Python: {file}, sha256 {sha256}"
                fix = (
                    "read it; then pin another version, or allow just that file with a reason under [[startup]] in policy.toml"
                )
                raise LockError(what, where=f"{where}, {wheel.artifact.file}", fix=fix)
