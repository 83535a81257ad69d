"""Running what packages bring along: in a closed room (cell.py), with limits, and never as root."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from common import console
from common.errors import BuildError, MissingEnvironmentError
from common.run import run
from lockfiles.debian import rootfs
from lockfiles.sdists import cell

# For one build; docs/locks.md tells them.
SECONDS = 7200
MEMORY = 16 << 30
DISK = 8 << 30
FILES = 1_000_000
PROCESSES = 1024
_LIMITS = f"{SECONDS // 60} minutes, {MEMORY >> 30} GiB of memory for each process, {DISK >> 30} GiB of files"
# What a failing build says, and what to do about it; the first that fits.
_ADVICE = (
    (re.compile("a broken or hostile archive: "), "take another version, or a ready wheel of it"),
    (
        re.compile(r"\bnvcc\b|\bCUDA_HOME\b"),
        "its build needs CUDA's compiler (nvcc), which the base does not hold: take a ready wheel, by its address and sha256",
    ),
    (
        re.compile(r"No module named 'pkg_resources'"),
        'its build needs pkg_resources, which setuptools 81 and newer lack: state `build = ["setuptools<81"]` under [sdists], '
        "beside what else it needs",
    ),
    (
        re.compile(r"No module named '([\w.]+)'"),
        "its build needs {0}: state all that it needs, `build = [...]` under [sdists] (docs/locks.md)",
    ),
    (
        re.compile(
            r"No space left on device|File too large|MemoryError|Resource temporarily unavailable|SIGXCPU|SIGXFSZ|SIGKILL"
        ),
        f"a build may take {_LIMITS}: take a ready wheel instead",
    ),
    (
        re.compile(r"Network is unreachable|Temporary failure in name resolution|Name or service not known"),
        "a build has no network: state what it needs, `build = [...]` under [sdists], or take a ready wheel",
    ),
)
# The same on every machine and day: what a build sees must not decide its bytes.
_ENVIRONMENT = {
    "SOURCE_DATE_EPOCH": str(rootfs.EPOCH),
    "PYTHONHASHSEED": "0",
    "PATH": "/given/env/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "HOME": "/home",
    "USER": "nobody",
    "LOGNAME": "nobody",
    "TMPDIR": "/tmp",  # noqa: S108 - the room's own
    # /given is read-only; what is compiled in /source would lie in the wheel.
    "PYTHONDONTWRITEBYTECODE": "1",
}


def run_in(
    tree: Path, given: Path, argv: Sequence[str], result: Path, *, what: str, env: Mapping[str, str] | None = None
) -> str:
    """Run a command in a closed room; it leaves one file in `/out`.

    Args:
        tree: the base's root file system; the command sees its `/usr` and `/etc`.
        given: a folder that the command sees, read-only, as `/given`.
        argv: the command, in paths of the room.
        result: where its file is put; there is none yet.
        what: the action, for messages.
        env: more of an environment for it.

    Returns:
        the name that the command gave to its file.

    Raises:
        BuildError: it fails or takes too long; with the end of its output.
        MissingEnvironmentError: this machine does not allow such a room.
    """
    orders = cell.Orders(
        tree=str(tree),
        given=str(given),
        argv=list(argv),
        env={**_ENVIRONMENT, **(env or {})},
        result=str(result),
        seconds=SECONDS,
        memory=MEMORY,
        disk=DISK,
        files=FILES,
        processes=PROCESSES,
    )
    # -I, -S: nothing of this machine's Python but the standard library.
    done = run([sys.executable, "-I", "-S", cell.__file__, json.dumps(asdict(orders))])
    if done.code == 0:
        return str(json.loads(done.stdout))
    console.debug(done.stderr)
    said = done.stderr.strip().splitlines() or ["it said nothing"]
    if done.code == cell.NO_ROOM:
        raise MissingEnvironmentError(
            f"{what} needs namespaces of its own, and this machine does not allow them",
            where=said[-1][:400],
            fix="allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
            "kernel.apparmor_restrict_unprivileged_userns; in a container: --privileged), or take the wheel from your mirror",
        )
    if done.code == cell.TOO_LONG:
        raise BuildError(f"{what} {said[-1]}", fix=f"a build may take {_LIMITS}: take a ready wheel instead")
    raise BuildError(f"{what} failed", where=said[-1][:400], fix=_advice(done.stderr))


def _advice(said: str) -> str:
    for form, text in _ADVICE:
        if found := form.search(said):
            return text.format(*found.groups())
    return "the package's own build failed; PINWHEEL_VERBOSE=1 shows its output"
