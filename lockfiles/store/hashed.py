"""A file of the store, hashed and read through one open file: what is put in its place meanwhile is not what is read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from common import ownership
from common.errors import LockError, MissingEnvironmentError
from common.files import CHUNK
from lockfiles.model import Artifact


@contextmanager
def opened(artifact: Artifact, place: Path) -> Iterator[BinaryIO]:
    """Open an artifact whose bytes are the lock's.

    Args:
        artifact: what the file must be.
        place: where the store keeps it.

    Raises:
        LockError: it is not there, or its bytes are others, and the bad file is removed; or it was written to while open.
        MissingEnvironmentError: it cannot be read.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(os.fdopen(ownership.opened(place), "rb"))
            before, actual = os.fstat(file.fileno()), hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise LockError(f"{artifact.file} is not in the store", where=str(place), fix="run `invoke fetch`") from None
        except OSError as problem:
            raise MissingEnvironmentError(
                f"{artifact.file} cannot be read from the store: {problem.strerror}",
                where=str(place),
                fix="look at its permissions and at the disk",
            ) from None
        if actual != artifact.sha256:
            with suppress(OSError):
                place.unlink()
            raise LockError(
                f"{artifact.file}: the store's bytes are sha256 {actual}, the lock says {artifact.sha256}",
                where=str(place),
                fix=f"{'remove it' if place.exists() else 'it was removed'}; run `invoke fetch` again, and check the disk",
            )
        file.seek(0)
        yield file
        after = os.fstat(file.fileno())
        changed = (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size)
        if not changed and before.st_ctime_ns != after.st_ctime_ns:
            # The other times can be put back, this one cannot; but a new mode or name changes it as well.
            file.seek(0)
            again = hashlib.sha256()
            while chunk := file.read(CHUNK):
                again.update(chunk)
            changed = again.hexdigest() != artifact.sha256
        if changed:
            raise LockError(f"{artifact.file} was written to while it was read", where=str(place), fix="run it again")
