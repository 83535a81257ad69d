"""The versions of cosign that an outsider may have: Debian 13's, which Pinwheel installs, and the next release's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import requests

from common import apt, offline, paths
from common.errors import MissingEnvironmentError
from common.files import sha256_bytes, write_whole
from common.run import run

# Named by content, as everything that is fetched: only where a mirror still has it, it is tried.
_NEWER = "pool/main/c/cosign/cosign_3.1.1-2_amd64.deb"
_NEWER_DIGEST = "sha256:d8622ebffce1d69197288fc030ff06a4c247af5507107f85c5a878870b686b23"


def newer() -> Path:
    """Cosign 3, unpacked beside the cache; fetched from the user's own mirror the first time.

    Raises:
        LookupError: it is not to be had here; says why.
    """
    home = paths.cache() / "tests" / _NEWER_DIGEST.removeprefix("sha256:")
    program = home / "usr/bin/cosign"
    if program.exists():
        return program
    if offline.offline():
        raise LookupError("offline")
    try:
        mirror = next(one for one in apt.debian_mirrors() if one.suite == apt.RELEASE)
        answer = requests.get(mirror.uri + _NEWER, timeout=120)
    except (MissingEnvironmentError, requests.RequestException) as problem:
        raise LookupError(f"no mirror: {problem}") from None
    if answer.status_code != 200 or sha256_bytes(answer.content) != _NEWER_DIGEST:
        raise LookupError(f"the mirror of this machine has no {Path(_NEWER).name}: it answers {answer.status_code}")
    deb = home.with_suffix(".deb")
    write_whole(deb, answer.content)
    run(["dpkg-deb", "-x", deb, home], error=MissingEnvironmentError)
    return program


def call(program: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run cosign as somebody who just got it: no configuration, no password."""
    env = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "COSIGN_PASSWORD": ""}
    return subprocess.run([program, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)
