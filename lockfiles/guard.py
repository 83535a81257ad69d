"""What stops a lock before anything of it is built or written: malware, as the advisory data has it."""

from __future__ import annotations

from collections.abc import Iterable

from common.errors import LockError, MissingEnvironmentError
from lockfiles.audit import locked, run
from lockfiles.audit.data import Index


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
