"""`invoke store`: what the store holds, whether it is sound, and what may go."""

from __future__ import annotations

from common import console, paths
from common.errors import UsageError
from lockfiles import fetching, inputs, models, store, toolchain


def tend(*, verify: bool, prune: bool) -> str:
    """Report on the store, and verify or prune it; returns the outcome in a few words.

    Args:
        verify: hash every file that a lock names and the store has.
        prune: remove what no lock names.

    Raises:
        LockError: a file's bytes are not its name's; it is removed. Or a lock is missing or broken.
        UsageError: both at once.
    """
    if verify and prune:
        raise UsageError("--verify reads the store and --prune empties it", fix="give one of them")
    wanted = {*fetching.artifacts(inputs.set_names()), *models.artifacts()}
    held = [one for one in wanted if store.has(one)]
    if verify:
        count, size = store.verify(held)
        return f"{count} files, {console.size(size)}: every one is what its lock says"
    if prune:
        count, size = store.prune({one.sha256 for one in (*wanted, toolchain.artifact())})
        return f"{count} files removed, {console.size(size)}"
    total = sum({one.sha256: one.size for one in held}.values())
    where = paths.cache("store")
    return f"{len({one.sha256 for one in held})} of {len({one.sha256 for one in wanted})} files, {console.size(total)}: {where}"
