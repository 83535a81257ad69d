"""Where the resolver may look: the user's one index, or offline the wheels and sdists that are on this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import LockError
from common.offline import offline
from lockfiles import index, inputs, lockfile, store
from lockfiles.store import mirror


@contextmanager
def configured() -> Iterator[tuple[list[str], dict[str, str | None]]]:
    """Uv's arguments, and the changes of the environment, that make it look nowhere else.

    Raises:
        MissingEnvironmentError: pip's configuration cannot be read.
    """
    # Whatever else the host's uv or pip configuration holds would contaminate a resolution.
    cleared: dict[str, str | None] = dict.fromkeys(key for key in os.environ if key.startswith(("UV_", "PIP_")))
    if not offline():
        # The address may carry credentials: through the environment, which others cannot read, and never as an argument.
        yield [], {**cleared, "UV_DEFAULT_INDEX": index.url()}
        return
    with tempfile.TemporaryDirectory(prefix="pinwheel-wheels-") as folder:
        for name, file in _on_this_machine().items():
            Path(folder, name).symlink_to(file)
        yield ["--offline", "--no-index", "--find-links", folder], cleared


def _on_this_machine() -> dict[str, Path]:
    """The wheels and sdists of the store that a lock names, and those of a mirror that is a folder; by file name."""
    found: dict[str, Path] = {}
    for name in inputs.set_names():
        with suppress(LockError):
            # A shim is no package, and what we build from source is resolved as source.
            for wheel in lockfile.read_set(name).wheels:
                one = wheel.sdist or wheel.artifact
                if not wheel.shim and store.has(one):
                    found[one.file] = store.path(one)
    if folder := mirror.folder():
        found |= {file.name: file for file in sorted(folder.glob("sha256/*/*"))}
    return {name: file for name, file in found.items() if not name.endswith(".deb")}
