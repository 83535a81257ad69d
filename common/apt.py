"""The machine's own apt: which Debian mirrors it uses, and installing packages from them.

Mirrors are never written in this project: they are read from the user's apt configuration, so a proxy of theirs just works.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from common import offline
from common.errors import MissingEnvironmentError
from common.files import write_whole
from common.run import run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
RELEASE = "bookworm"
# The release after ours: source of the tools that Debian 12 has only in versions too old.
NEXT_RELEASE = "trixie"
_APT_D = Path("/etc/apt")
_APT = ("apt-get", "-q", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=120")
_FIX = "see apt's message; `apt-get update` by hand shows more"
_DEBIAN_12 = "Pinwheel reads Debian's mirror from apt's configuration: run it on Debian 12"
_NONINTERACTIVE = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True, order=True)
class Mirror:
    """One suite of Debian, and the address from which the user's apt takes it.

    Attributes:
        suite: `bookworm`, `bookworm-updates` or `bookworm-security`; or one that base.in names.
        uri: base of the archive, ends in a slash.
        component: of the suite; empty for a repository without suites, whose `suite` ends in a slash.
        keyring: holds the keys by which the suite must be signed.
    """

    suite: str
    uri: str
    component: str = "main"
    keyring: Path = KEYRING


def debian_mirrors() -> tuple[Mirror, ...]:
    """The mirrors from which this machine's apt takes Debian 12, sorted.

    Raises:
        MissingEnvironmentError: no apt here, or it is not configured for Debian 12.
    """
    ours = {(suite, "main") for suite in (RELEASE, f"{RELEASE}-updates", f"{RELEASE}-security")}
    mirrors = {mirror for mirror in _configured() if (mirror.suite, mirror.component) in ours}
    if not mirrors and os.geteuid() == 0:
        # apt names only suites whose package lists it has; fresh machine images have none.
        _update()
        mirrors = {mirror for mirror in _configured() if (mirror.suite, mirror.component) in ours}
    if not any(mirror.suite == RELEASE for mirror in mirrors):
        raise MissingEnvironmentError(
            "apt has no package lists of Debian 12 (bookworm main)",
            where="/etc/apt",
            fix=f"run `apt-get update` as root; {_DEBIAN_12}",
        )
    return tuple(sorted(mirrors))


def further_mirrors(suite: str, component: str, keyring: Path) -> tuple[Mirror, ...]:
    """Where this machine's apt takes another suite from, sorted; it must be signed by a key of this keyring.

    Raises:
        MissingEnvironmentError: no apt here, or it knows no such suite.
    """
    found = [one for one in _configured() if (one.suite, one.component) == (suite, component)]
    if not found:
        raise MissingEnvironmentError(
            f"apt has no package lists of {' '.join(filter(None, (suite, component)))}, from which base.in takes packages",
            where="/etc/apt",
            fix="add it to apt's sources and run `apt-get update` as root",
        )
    return tuple(sorted(Mirror(suite, one.uri, component, keyring) for one in found))


def _configured() -> set[Mirror]:
    """Every suite whose package lists this machine's apt has."""
    targets = run(
        ["apt-get", "indextargets", "--format", "$(CREATED_BY)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)"],
        error=MissingEnvironmentError,
        missing=_DEBIAN_12,
    )
    mirrors = set()
    for line in targets.stdout.splitlines():
        created_by, suite, component, uri = line.split("|", 3)
        if created_by == "Packages":
            # Where there is no component, apt leaves the words as they are.
            mirrors.add(Mirror(suite, uri, "" if component.startswith("$(") else component))
    return mirrors


def _update() -> None:
    offline.demand_network("`apt-get update`", fix="run it without --offline")
    run(
        [*_APT, "update"],
        env=_NONINTERACTIVE,
        error=MissingEnvironmentError,
        what="apt-get update",
        fix=_FIX,
        missing=_DEBIAN_12,
    )


def install(packages: list[str], *, newer: list[str]) -> None:
    """Install Debian packages; those of `newer` from the next stable release, and nothing else from there.

    Args:
        packages: names in Debian 12.
        newer: names to take from the next release, which Debian 12's libc can run.

    Raises:
        MissingEnvironmentError: not root, offline, or apt fails; the message holds apt's own message.
    """
    offline.demand_network(f"installing {' '.join(packages + newer)}", fix="run it without --offline, or install them yourself")
    if os.geteuid() != 0:
        raise MissingEnvironmentError(
            f"installing {' '.join(packages + newer)} needs root",
            fix="run `sudo ./invokew engine --install`, or install them yourself",
        )
    if newer:
        base = next(mirror for mirror in debian_mirrors() if mirror.suite == RELEASE)
        write_whole(
            _APT_D / "sources.list.d/pinwheel.sources",
            f"# Written by Pinwheel (`invoke engine --install`); see preferences.d/pinwheel.\n"
            f"Types: deb\nURIs: {base.uri}\nSuites: {NEXT_RELEASE}\nComponents: main\nSigned-By: {KEYRING}\n",
        )
        write_whole(
            _APT_D / "preferences.d/pinwheel",
            f"# Written by Pinwheel: from {NEXT_RELEASE} come exactly the packages named here.\n"
            f"Package: *\nPin: release n={NEXT_RELEASE}\nPin-Priority: -1\n\n"
            f"Package: {' '.join(newer)}\nPin: release n={NEXT_RELEASE}\nPin-Priority: 990\n",
        )
    _update()
    # Keep apt from starting daemons: Pinwheel starts them with its own settings, and only if none works yet.
    policy = Path("/usr/sbin/policy-rc.d")
    placed = not policy.exists()
    if placed:
        write_whole(policy, "#!/bin/sh\nexit 101\n", 0o755)
    try:
        run(
            [*_APT, "install", "-y", "--no-install-recommends", *packages, *newer],
            env=_NONINTERACTIVE,
            error=MissingEnvironmentError,
            what="apt-get install",
            fix=_FIX,
        )
    finally:
        if placed:
            policy.unlink(missing_ok=True)
