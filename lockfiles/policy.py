"""What may not enter a lock: `policy.toml`, kept by hand.

Unknown keys are refused, and patterns that match no licence: a misspelt one would forbid nothing, silently.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from common import paths, reader
from common.errors import LockError
from lockfiles import store
from lockfiles.audit.model import SEVERITIES, Severity
from lockfiles.licences import spdx
from lockfiles.model import Deb, Wheel
from lockfiles.python import startup

_PATTERN = re.compile(r"[A-Za-z0-9.+*-]+")


@dataclass(frozen=True, slots=True, order=True)
class Startup:
    """A file of a wheel that may run at each start of Python.

    Attributes:
        package: that brings it.
        file: its path in the site folder: `distutils-precedence.pth`.
        sha256: of its content: other content is other code.
        reason: for people.
    """

    package: str
    file: str
    sha256: str
    reason: str


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy.

    Attributes:
        forbidden: patterns of SPDX identifiers.
        unknown: whether a package may be without a licence that could be told.
        allowed_for: (package, reason) of packages that these rules do not count for.
        cooldown_days: how long a release must be out before it is locked.
        audit: the severity from which an advisory fails `invoke audit`.
        data_days: how old its data may be.
        startup: files that may run at each start of Python.
    """

    forbidden: tuple[str, ...]
    unknown: bool
    allowed_for: tuple[tuple[str, str], ...]
    cooldown_days: int
    audit: Severity = "high"
    data_days: int = 7
    startup: tuple[Startup, ...] = ()


def path() -> Path:
    """Where the policy lies."""
    return paths.LOCKFILES / "policy.toml"


def read() -> Policy:
    """Read `policy.toml`.

    Raises:
        UsageError: it is missing, no TOML, or says something unknown.
    """
    keys = reader.toml(path(), fix="mend it, or restore it from git")
    licences, cooldown = keys.below("licences"), keys.below("cooldown")
    forbidden, unknown = licences.texts("forbidden"), licences.text("unknown")
    for pattern in forbidden:
        _check_pattern(licences, pattern)
    if unknown not in ("allow", "refuse"):
        raise licences.refused("unknown", f'expected "allow" or "refuse", got {unknown!r}')
    excused = licences.below("allowed_for")
    reasons = tuple((package, excused.text(package).strip()) for package in sorted(excused.body))
    for package, reason in reasons:
        if not reason:
            raise excused.refused(package, "gives no reason", "say why the package may stay")
    days = cooldown.number("days", 0, 3650)
    audit = keys.below("audit", optional=True)
    severity = audit.text("refuse", "high")
    worst = next((one for one in SEVERITIES if one == severity), None)
    if worst is None:
        raise audit.refused("refuse", f"expected one of {', '.join(SEVERITIES)}, got {severity!r}")
    data_days = audit.number("data-days", 1, 3650, 7)
    at_start = tuple(sorted(_startup(entry) for entry in keys.each("startup")))
    for table in (keys, licences, cooldown, audit):
        table.end()
    return Policy(forbidden, unknown == "allow", reasons, days, worst, data_days, at_start)


def _startup(entry: reader.Keys) -> Startup:
    found = Startup(entry.text("package"), entry.text("file"), entry.text("sha256"), entry.text("reason").strip())
    if not re.fullmatch(r"[0-9a-f]{64}", found.sha256):
        raise entry.refused("sha256", f"not a sha256: {found.sha256!r}", "`invoke lock` names it")
    if not found.reason:
        raise entry.refused("reason", "gives no reason", "say why the code may run")
    entry.end()
    return found


def check_licences(policy: Policy, lock: str, packages: Iterable[Deb | Wheel]) -> None:
    """Check what a lock holds, or will hold, against the policy.

    Args:
        policy: the rules.
        lock: `base` or the set's name.
        packages: what it holds.

    Raises:
        LockError: packages cannot be used without a forbidden or an unknown licence; each is named with its own reason.
    """
    excused = {package for package, _ in policy.allowed_for}
    refused = [package for package in packages if package.name not in excused and not _passes(policy, package)]
    if not refused:
        return
    # A licence that nobody may have comes before one that nobody knows.
    untold = [f"{one.name} {one.version}" for one in refused if _untold(policy, one)]
    forbidden = [f"{one.name} {one.version} is under {one.licence}" for one in refused if not _untold(policy, one)]
    said = [f"{', '.join(forbidden)}, which the policy forbids"] if forbidden else []
    if untold:
        tell = "does not tell its licence" if len(untold) == 1 else "do not tell their licences"
        said.append(f"{', '.join(untold)} {tell}, which the policy asks for")
    raise LockError(
        "; ".join(said),
        where=f"{lock}.lock, {paths.shown(path())}",
        fix="do without it, pin a version under another licence, or name it with a reason under [licences.allowed_for]",
    )


def check_startup(wheels: Iterable[Wheel], found: Mapping[str, Mapping[str, str]], where: str) -> None:
    """Refuse code that runs at each start of Python and that `policy.toml` does not allow.

    Args:
        wheels: of a lock.
        found: by sha256 of the wheel, the sha256 of such files by their path.
        where: the input that asks for the wheels.

    Raises:
        LockError: there is such code; nothing was written.
    """
    wheels = [wheel for wheel in wheels if found.get(wheel.artifact.sha256)]
    allowed = {(one.package, one.file, one.sha256) for one in read().startup} if wheels else set()
    for wheel in wheels:
        for file, sha256 in sorted(found[wheel.artifact.sha256].items()):
            if (wheel.name, file, sha256) not in allowed:
                what = f"{wheel.name} {wheel.version} brings code that runs at each start of Python: {file}, sha256 {sha256}"
                fix = (
                    "read it; then pin another version, or allow just that file with a reason under [[startup]] in policy.toml"
                )
                raise LockError(what, where=f"{where}, {wheel.artifact.file}", fix=fix)


def check_bytes(wheel: Wheel) -> None:
    """Refuse the same by the wheel's own bytes: while it was locked an index may have shown others.

    Args:
        wheel: in the store, verified.

    Raises:
        LockError: there is such code.
    """
    with zipfile.ZipFile(store.path(wheel.artifact)) as archive:
        check_startup([wheel], {wheel.artifact.sha256: startup.find(archive)}, "lockfiles/")


def _untold(policy: Policy, package: Deb | Wheel) -> bool:
    """Whether a refused package would pass if what it does not tell were permitted."""
    return spdx.holds(package.licence or spdx.UNKNOWN, lambda part: part == spdx.UNKNOWN or not _forbidden(policy, part))


def _passes(policy: Policy, package: Deb | Wheel) -> bool:
    # A shim holds nothing but a name.
    unknown = policy.unknown or (isinstance(package, Wheel) and package.shim)
    licence = package.licence or spdx.UNKNOWN
    return spdx.holds(licence, lambda part: unknown if part == spdx.UNKNOWN else not _forbidden(policy, part))


def _forbidden(policy: Policy, licence: str) -> bool:
    # An exception permits more than the licence, but not the opposite of it.
    names = (licence, licence.partition(" WITH ")[0])
    return any(fnmatchcase(name, pattern) for name in names for pattern in policy.forbidden)


def _check_pattern(licences: reader.Keys, pattern: str) -> None:
    if not _PATTERN.fullmatch(pattern):
        fix = "write an SPDX identifier, `*` for any ending"
        raise licences.refused("forbidden", f"not a licence or a pattern: {pattern!r}", fix)
    if not pattern.startswith("LicenseRef-") and not any(fnmatchcase(known, pattern) for known in spdx.licence_ids()):
        fix = "see spdx.org/licenses; terms not listed there are LicenseRef-…"
        raise licences.refused("forbidden", f"no SPDX licence is called {pattern}", fix)
