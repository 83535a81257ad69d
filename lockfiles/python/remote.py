"""Reading a few bytes of a big file on a server: HTTP range requests (RFC 9110, section 14) as a seekable file.

`zipfile.ZipFile(RemoteFile(…))` reads one member of a wheel of gigabytes with two or three small requests. What is read so
is not checked against a hash: it informs a resolution or a message, and never enters an image.
"""

from __future__ import annotations

import errno
import io
import os
import re
import time
import zipfile
import zlib
from collections.abc import Callable
from urllib.parse import unquote

import requests

from common.errors import LockError, MissingEnvironmentError

# One request brings the end of a zip file with its whole directory, for all but wheels of thousands of files.
_BLOCK = 1 << 16
_TRIES = 3
# What the standard library raises over a damaged or encrypted zip file.
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)
_FIX = "check the network and your index configuration"


class NoRangesError(MissingEnvironmentError):
    """The server only serves files whole.

    Args:
        name: of the file.
        size: of it in bytes, where the server tells it.
    """

    def __init__(self, name: str, size: int | None = None) -> None:
        self.size = size
        what = "your index does not serve parts of files (HTTP range requests)"
        super().__init__(what, where=name, fix="use an index or proxy that does")


class RemoteFile(io.RawIOBase):
    """A file on a server, read in parts; read-only and seekable. Not for several threads at once.

    Args:
        session: carries the user's authentication and certificates.
        address: of the file; never shown, for it may carry credentials.

    Raises:
        NoRangesError: the server does not serve parts of files.
        MissingEnvironmentError: it does not answer, or refuses.
    """

    def __init__(self, session: requests.Session, address: str) -> None:
        super().__init__()
        self._session, self._address, self._at = session, address, 0
        self.name = unquote(address.partition("?")[0].partition("#")[0].rpartition("/")[2])
        # The end first: that is where a zip file is read from, and the answer tells the whole size.
        self._parts: list[tuple[int, bytes]] = []
        self.size = -1
        self._fetch(f"-{_BLOCK}")

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The position the next read starts at."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; as in other files, beyond the end is allowed and reads nothing there."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if start + offset < 0:
            # What a file on disk says; zipfile takes it as "too short to be a zip file".
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._at = start + offset
        return self._at

    def readinto(self, buffer: object) -> int:
        """Fill the buffer, to the end of the file at most.

        Raises:
            NoRangesError, MissingEnvironmentError: as at opening.
        """
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        count = max(0, min(len(view), self.size - self._at))
        if count:
            start, data = self._part(self._at, count)
            view[:count] = data[self._at - start : self._at - start + count]
            self._at += count
        return count

    def _part(self, start: int, count: int) -> tuple[int, bytes]:
        for begin, data in self._parts:
            if begin <= start and start + count <= begin + len(data):
                return begin, data
        # The end is kept, and of the rest what was read last: a zip member is a header and, right after it, its bytes.
        del self._parts[1:]
        self._fetch(f"{start}-{min(start + max(count, _BLOCK), self.size) - 1}")
        return self._parts[-1]

    def _fetch(self, span: str) -> None:
        # Compressed in transit, the bytes would not be those at the positions asked for.
        headers = {"Range": f"bytes={span}", "Accept-Encoding": "identity"}
        for attempt in range(1, _TRIES + 1):
            time.sleep((attempt - 1) / 4)
            try:
                with self._session.get(self._address, headers=headers, stream=True, timeout=(20, 60)) as answer:
                    if answer.status_code >= 500 and attempt < _TRIES:
                        continue
                    self._keep(answer, span)
                return
            except requests.RequestException as problem:
                if attempt == _TRIES:
                    # The library's message may carry the address, and that credentials: only the kind is told.
                    said = f"{self.name} cannot be read from your index: {type(problem).__name__}"
                    raise MissingEnvironmentError(said, fix=_FIX) from None

    def _keep(self, answer: requests.Response, span: str) -> None:
        if answer.status_code >= 400 and answer.status_code not in {416, 501}:
            said = f"{self.name} cannot be read from your index: the server answers {answer.status_code}"
            raise MissingEnvironmentError(said, fix=_FIX)
        told = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("Content-Range", ""))
        if answer.status_code != 206 or told is None:
            length = answer.headers.get("Content-Length", "")
            raise NoRangesError(self.name, int(length) if answer.status_code == 200 and length.isdecimal() else None)
        first, last, size = (int(part) for part in told.groups())
        data = answer.content
        asked = (max(0, size + int(span)), size - 1) if span.startswith("-") else tuple(int(end) for end in span.split("-"))
        if (first, last) != asked or len(data) != last - first + 1 or self.size not in (-1, size):
            said = f"{self.name} changed while it was read, or your index answers with another part than asked for"
            raise MissingEnvironmentError(said, fix=_FIX)
        self.size = size
        self._parts.append((first, data))


def read_member(
    session: requests.Session, address: str, wanted: str | Callable[[str], bool], *, limit: int = 16 << 20
) -> bytes:
    """One member of a wheel or other zip file on a server, without downloading the file.

    Args:
        session: carries the user's authentication and certificates.
        address: of the file.
        wanted: how the member's name ends (`.dist-info/METADATA`), or what says of a name that it is the one. Of several the
            one nearest to the root is meant: packages carry others within themselves.
        limit: bytes; a member that unpacks to more is refused.

    Raises:
        LockError: no such member, several, or not a sound zip file.
        NoRangesError: the server only serves files whole.
        MissingEnvironmentError: the server does not answer, or refuses.
    """
    fits = wanted if callable(wanted) else lambda name: name.endswith(wanted)
    with RemoteFile(session, address) as remote:
        try:
            with zipfile.ZipFile(remote) as archive:
                found = [entry for entry in archive.infolist() if fits(entry.filename)]
                depth = min((entry.filename.count("/") for entry in found), default=0)
                found = [entry for entry in found if entry.filename.count("/") == depth]
                if len(found) != 1:
                    what = wanted if isinstance(wanted, str) else "the member looked for"
                    raise LockError(f"{remote.name} holds {what} {len(found)} times", fix="pin another version")
                if found[0].file_size > limit:
                    raise LockError(
                        f"{remote.name}: {found[0].filename} unpacks to {found[0].file_size} bytes", fix="pin another version"
                    )
                return archive.read(found[0])
        except BROKEN_ZIP as problem:
            said = f"{remote.name} is no sound zip file: {problem}"
            raise LockError(said, fix="pin another version, or ask who runs your index") from None
