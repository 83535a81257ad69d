"""A blob of the layout on its way out: held open, read in pieces, hashed as it goes."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from common.errors import BuildError
from oci.client.patience import StoppedError

_FIX = "remove it and run `invoke build` again"


class Blob:
    """One blob; a context manager. Once it is open, a build that sweeps the layout takes nothing away.

    Args:
        what: what it holds, for people.
        digest: what it must be.
        size: what it must be, bytes.
        path: the file.

    Raises:
        BuildError: it is missing, or has another size.
    """

    def __init__(self, what: str, digest: str, size: int, path: Path) -> None:
        self.what, self.digest, self.size, self.path = what, digest, size, path
        try:
            self._file = path.open("rb")
        except FileNotFoundError:
            raise BuildError(f"the layer {what!r} is missing", where=str(path), fix="run `invoke build` again") from None
        found = os.fstat(self._file.fileno()).st_size
        if found != size:
            self._file.close()
            raise BuildError(f"the layer {what!r} has {found} bytes and not {size}", where=str(path), fix=_FIX)
        self._sum, self.hashed = hashlib.sha256(), 0

    def __enter__(self) -> Blob:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, start: int, count: int) -> bytes:
        """Bytes at a position; the last ones only if all that were read are those of the digest.

        Raises:
            BuildError: the blob was altered.
        """
        data = os.pread(self._file.fileno(), min(count, self.size - start), start)
        # What is read again after a cut was hashed the first time.
        if start <= self.hashed < start + len(data):
            self._sum.update(memoryview(data)[self.hashed - start :])
            self.hashed = start + len(data)
        at_end = start + len(data) == self.size
        if (not data and count) or (at_end and f"sha256:{self._sum.hexdigest()}" != self.digest):
            raise BuildError(f"the layer {self.what!r} was altered", where=str(self.path), fix=_FIX)
        return data


class Piece:
    """A part of a blob as the body of a request: what urllib3 reads from.

    Args:
        blob: the blob.
        start: where the part begins.
        length: its bytes.
        tell: is told of every byte that is handed out.
        stop: ends the request when set.
    """

    def __init__(self, blob: Blob, start: int, length: int, tell: Callable[[int], None], stop: threading.Event) -> None:
        self._blob, self._at, self._length, self._end = blob, start, length, start + length
        self._tell, self._stop = tell, stop

    def __len__(self) -> int:
        return self._length

    def read(self, count: int = -1) -> bytes:
        """The next bytes, none at the end.

        Raises:
            BuildError: the blob was altered.
            StoppedError: `stop` was set.
        """
        if self._stop.is_set():
            raise StoppedError
        left = self._end - self._at
        if not left:
            return b""
        data = self._blob.read(self._at, left if count < 0 else min(count, left))
        self._at += len(data)
        self._tell(len(data))
        return data
