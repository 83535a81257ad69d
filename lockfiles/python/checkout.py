"""The files of one commit of a git repository, by the user's own git: its logins, proxies and `url.….insteadOf` count."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import console, offline
from common.errors import LockError, MissingEnvironmentError
from common.run import Result, run
from lockfiles.origins import Origin
from lockfiles.python import source_archive
from lockfiles.python.source_archive import Entry

_LFS = b"version https://git-lfs.github.com/spec/v1"
_GIT = "install git: `apt-get install git`"


def entries(origin: Origin) -> tuple[str, list[Entry]]:
    """The tree's hash, and its files.

    Raises:
        LockError: the repository has no such commit or folder, or keeps part of it elsewhere (submodules).
        MissingEnvironmentError: it does not answer, or git is missing, or this run is offline.
    """
    with _fetched(origin) as repository, tempfile.TemporaryDirectory(prefix="pinwheel-git-") as scratch:
        found = _git(repository, "rev-parse", "--verify", f"{origin.commit}:{origin.folder}")
        if found.code:
            what = f"{origin.name}: {origin.repository} has no folder {origin.folder!r} at {origin.commit[:12]}"
            raise LockError(what, fix="correct #subdirectory=")
        tree = found.stdout.strip()
        listed = _git(repository, "ls-tree", "-r", tree).stdout.splitlines()
        for line in listed:
            if line.startswith("160000 "):
                held = line.partition("\t")[2]
                what = f"{origin.name}: {held!r} of {origin.shown} is a submodule, which the commit does not hold"
                raise LockError(what, fix="build a wheel of it and name that by its address and hash")
        # Every file of the tree as it is, whatever its .gitattributes say of archives.
        (repository / "info").mkdir(exist_ok=True)
        (repository / "info/attributes").write_text("* -export-ignore -export-subst\n")
        file = Path(scratch) / "tree.tar"
        # Settings of this machine must not change the bytes.
        plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1"}
        made = _git(repository, "-c", "tar.umask=0022", "archive", "--format=tar", f"--output={file}", tree, env=plain)
        if made.code:
            raise MissingEnvironmentError(f"git cannot read {origin.shown}: {_verdict(made)}", fix="look at its message")
        files = source_archive.of_tar(file)
    large = [entry.path for entry in files if entry.data.startswith(_LFS)]
    if large:
        console.warn(f"{origin.name}: {large[0]!r} is kept by Git LFS: the commit holds a pointer to it, and so will the image")
    return tree, files


@contextmanager
def _fetched(origin: Origin) -> Iterator[Path]:
    """A repository that has the commit, as long as the block runs."""
    offline.demand_network(f"fetching {origin.name} from {origin.repository}", fix=offline.FIX)
    with tempfile.TemporaryDirectory(prefix="pinwheel-git-") as scratch, console.step(f"fetching {origin.shown}"):
        repository = Path(scratch)
        form = "sha256" if len(origin.commit) == 64 else "sha1"
        _git(repository, "init", "--quiet", "--bare", f"--object-format={form}")
        got = _git(repository, "fetch", "--quiet", "--no-tags", "--depth=1", origin.repository, origin.commit)
        if got.code:
            # Some servers give out branches and tags only; whether the commit is on one of them is then seen here.
            whole = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
            got = _git(repository, "fetch", "--quiet", "--no-tags", origin.repository, *whole)
            if got.code:
                what = f"{origin.name}: git cannot fetch {origin.repository}: {_verdict(got)}"
                fix = "check the address, the network, and that `git ls-remote` of it works here without asking for a password"
                raise MissingEnvironmentError(what, fix=fix)
        found = _git(repository, "rev-parse", "--verify", f"{origin.commit}^{{commit}}")
        if found.code:
            what = f"{origin.name}: {origin.repository} has no commit {origin.commit}"
            raise LockError(what, fix="name one that is on a branch or tag of it")
        if found.stdout.strip() != origin.commit:
            what = f"{origin.name}: {origin.commit} of {origin.repository} is a tag, and no commit"
            raise LockError(what, fix=f"name its commit: {found.stdout.strip()}")
        yield repository


def _git(repository: Path, *argv: str, env: dict[str, str] | None = None) -> Result:
    own: dict[str, str | None] = {"GIT_TERMINAL_PROMPT": "0", "GIT_DIR": None, "GIT_WORK_TREE": None, "GIT_INDEX_FILE": None}
    if not os.environ.get("GIT_SSH_COMMAND"):
        own["GIT_SSH_COMMAND"] = "ssh -o BatchMode=yes"
    return run(["git", "-C", repository, *argv], env={**own, **(env or {})}, missing=_GIT)


def _verdict(result: Result) -> str:
    lines = [line for line in result.stderr.splitlines() if line.startswith(("fatal:", "error:", "remote:"))]
    return (lines or result.stderr.strip().splitlines() or ["no reason given"])[-1][:300]
