"""What may not enter a lock: `policy.toml`, kept by hand.

Unknown keys are refused, and patterns that match no licence: a misspelt one would forbid nothing, silently.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from common import paths
from common.errors import LockError, UsageError
from lockfiles.licences import spdx
from lockfiles.model import Deb, Wheel

_PATTERN = re.compile(r"[A-Za-z0-9.+*-]+")


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy.

    Attributes:
        forbidden: patterns of SPDX identifiers.
        unknown: whether a package may be without a licence that could be told.
        allowed_for: (package, reason) of packages that these rules do not count for.
        cooldown_days: how long a release must be out before it is locked.
    """

    forbidden: tuple[str, ...]
    unknown: bool
    allowed_for: tuple[tuple[str, str], ...]
    cooldown_days: int


def path() -> Path:
    """Where the policy lies."""
    return paths.LOCKFILES / "policy.toml"


def read() -> Policy:
    """Read `policy.toml`.

    Raises:
        UsageError: it is missing, no TOML, or says something unknown.
    """
    try:
        body = tomllib.loads(path().read_text())
    except FileNotFoundError:
        raise _refused("there is no policy", "restore it from git") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise _refused(f"not TOML: {problem}") from None
    _keys(body, "the file", {"licences", "cooldown"})
    licences, cooldown = _table(body, "licences"), _table(body, "cooldown")
    _keys(licences, "[licences]", {"forbidden", "unknown", "allowed_for"})
    _keys(cooldown, "[cooldown]", {"days"})
    days = cooldown["days"]
    if type(days) is not int or not 0 <= days <= 3650:
        raise _refused(f"days must be a number of days from 0 to 3650, not {days!r}")
    if licences["unknown"] not in ("allow", "refuse"):
        raise _refused(f'unknown must be "allow" or "refuse", not {licences["unknown"]!r}')
    forbidden = licences["forbidden"]
    if not isinstance(forbidden, list) or not all(isinstance(pattern, str) for pattern in forbidden):
        raise _refused("forbidden must be a list of strings")
    for pattern in forbidden:
        _meaningful(pattern)
    reasons = _table(licences, "allowed_for")
    for package, reason in reasons.items():
        if not isinstance(reason, str) or not reason.strip():
            raise _refused(f"allowed_for.{package} gives no reason", "say why the package may stay")
    return Policy(tuple(forbidden), licences["unknown"] == "allow", tuple(sorted(reasons.items())), days)


def check_licences(policy: Policy, lock: str, packages: Iterable[Deb | Wheel]) -> None:
    """Check what a lock holds, or will hold, against the policy.

    Args:
        policy: the rules.
        lock: `base` or the set's name.
        packages: what it holds.

    Raises:
        LockError: a package cannot be used without a forbidden or an unknown licence; the first of them is named.
    """
    excused = {package for package, _ in policy.allowed_for}
    refused = [one for one in packages if one.name not in excused and not _passes(policy, one)]
    if not refused:
        return
    first = refused[0]
    licence = first.licence or spdx.UNKNOWN
    why = f"is under {licence}, which the policy forbids"
    if spdx.holds(licence, lambda one: one == spdx.UNKNOWN or not _forbidden(policy, one)):
        why = "does not tell its licence, which the policy asks for"
    others = f"; so for {len(refused) - 1} more: {', '.join(one.name for one in refused[1:4])}" if refused[1:] else ""
    raise LockError(
        f"{first.name} {first.version} {why}{others}",
        where=f"{lock}.lock, {paths.shown(path())}",
        fix="do without it, pin a version under another licence, or name it with a reason under [licences.allowed_for]",
    )


def _passes(policy: Policy, package: Deb | Wheel) -> bool:
    # A shim holds nothing but a name.
    unknown = policy.unknown or (isinstance(package, Wheel) and package.shim)
    licence = package.licence or spdx.UNKNOWN
    return spdx.holds(licence, lambda one: unknown if one == spdx.UNKNOWN else not _forbidden(policy, one))


def _forbidden(policy: Policy, licence: str) -> bool:
    # An exception permits more than the licence, but not the opposite of it.
    names = (licence, licence.partition(" WITH ")[0])
    return any(fnmatchcase(name, pattern) for name in names for pattern in policy.forbidden)


def _meaningful(pattern: str) -> None:
    if not _PATTERN.fullmatch(pattern):
        raise _refused(f"not a licence or a pattern: {pattern!r}", "write an SPDX identifier, `*` for any ending")
    if not pattern.startswith("LicenseRef-") and not any(fnmatchcase(known, pattern) for known in spdx.licence_ids()):
        raise _refused(f"no SPDX licence is called {pattern}", "see spdx.org/licenses; terms not listed there are LicenseRef-…")


def _table(body: dict[str, Any], key: str) -> dict[str, Any]:
    value = body[key]
    if not isinstance(value, dict):
        raise _refused(f"{key} must be a table")
    return value


def _keys(body: dict[str, Any], place: str, known: set[str]) -> None:
    wrong = sorted(set(body) ^ known)
    if wrong:
        raise _refused(f"{place} lacks or does not know {wrong[0]!r}", f"it has {', '.join(sorted(known))}")


def _refused(what: str, fix: str = "mend it") -> UsageError:
    return UsageError(what, where=paths.shown(path()), fix=fix)
