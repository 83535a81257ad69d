"""A blob that is being sent: held open, read in pieces, hashed on the way."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from common.errors import BuildError
from oci.client.patience import StoppedError


class Blob:
    """One blob; a context manager. Once it is open, a build that removes old blobs from the layout does no harm.

    Args:
        what: its content, named for people: `model.safetensors`.
        digest: that its bytes must have.
        size: that it must have, in bytes.
        source: the file, or the bytes themselves.
        fix: what the user can do where the file is another one.

    Raises:
        BuildError: the file is missing, or has another size.
    """

    def __init__(
        self, what: str, digest: str, size: int, source: Path | bytes, *, fix: str = "remove it and run `invoke build` again"
    ) -> None:
        self.what, self.digest, self.size, self._fix = what, digest, size, fix
        self._where = "memory" if isinstance(source, bytes) else str(source)
        self._data = source if isinstance(source, bytes) else b""
        self._file: BinaryIO | None = None
        if isinstance(source, Path):
            try:
                self._file = source.open("rb")
            except FileNotFoundError:
                raise BuildError(f"the layer {what!r} is missing", where=self._where, fix="run `invoke build` again") from None
        length = os.fstat(self._file.fileno()).st_size if self._file else len(self._data)
        if length != size:
            self.__exit__()
            raise BuildError(f"the layer {what!r} has {length} bytes and not {size}", where=self._where, fix=fix)
        self._sum, self.hashed = hashlib.sha256(), 0

    def __enter__(self) -> Blob:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def read(self, start: int, count: int) -> bytes:
        """Bytes at a position; the last bytes only if all that were read have the digest.

        Raises:
            BuildError: the blob was altered.
        """
        end = min(start + count, self.size)
        data = os.pread(self._file.fileno(), end - start, start) if self._file else self._data[start:end]
        # Bytes that are read again after a cut were hashed the first time.
        if start <= self.hashed < start + len(data):
            self._sum.update(memoryview(data)[self.hashed - start :])
            self.hashed = start + len(data)
        at_end = start + len(data) == self.size
        if (not data and count) or (at_end and f"sha256:{self._sum.hexdigest()}" != self.digest):
            raise BuildError(f"the layer {self.what!r} was altered", where=self._where, fix=self._fix)
        return data


class Piece:
    """A part of a blob as the body of a request, which urllib3 reads.

    Args:
        blob: the blob.
        start: where the part begins.
        length: its bytes.
        tell: called with the number of bytes of each read.
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
