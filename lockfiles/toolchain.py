"""The Go toolchain that builds the programs of `invoke cluster`: a wheel of the package index, locked by content."""

from __future__ import annotations

import tomllib

from common import paths
from common.errors import LockError
from lockfiles.model import Artifact


def artifact() -> Artifact:
    """The wheel that `lockfiles/single-node/go.toml` locks.

    Raises:
        LockError: the lock is absent or was edited into something else.
    """
    file = paths.LOCKFILES / "single-node" / "go.toml"
    try:
        locked = tomllib.loads(file.read_text())
        return Artifact(str(locked["file"]), int(locked["size"]), str(locked["sha256"]))
    except (OSError, ValueError, KeyError) as problem:
        raise LockError(f"not a lock of the Go toolchain: {problem}", where=paths.shown(file), fix="take it from git") from None
