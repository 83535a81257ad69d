"""One blob into a registry, resumable (OCI distribution spec 1.1, "Pushing a blob in chunks" and "monolithically").

    POST  /v2/<name>/blobs/uploads/   a session: its Location, and with it every answer's after
    PATCH <location>                  a chunk, Content-Range from byte to byte; all but the last
    PUT   <location>?digest=<digest>  the last chunk; the registry checks the digest
    GET   <location>                  after a cut: Range says how far it got

What a registry says between is not relied on, for some report an old Range; the digest at the end decides. A registry that
forgets a session gets a new one, one that takes no chunks of this size smaller ones, and one that takes none at all the blob in
one PUT.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

from common.errors import RegistryError
from oci.client.answer import Answer
from oci.client.blob import Blob, Piece
from oci.client.http import Request, Scopes
from oci.client.patience import TransientError
from oci.client.target import resolve
from oci.client.wire import Wire

# Answers of registries, or of proxies before them, that know no PATCH, or none of this size.
_NO_CHUNKS = frozenset({405, 411, 413, 415, 501})
# New sessions for one blob, other than after a cut, before the registry is given up.
_RESTARTS = 3
# Smaller chunks are not tried after a 413: proxies take that much unless told otherwise.
_SMALLEST = 1 << 20


class Upload:
    """One upload.

    Args:
        wire: to the registry.
        start: the path that gives a session.
        scopes: what a token must allow.
        blob: what is sent.
        exists: whether the registry has the blob by now.
        tell: is told how many bytes went out; a negative number when they must go again.
        chunk: bytes of a chunk; 0: send in one request.
        session: of a mount that did not come about; empty: ask for one.

    Attributes:
        takes: `chunk`, or what was learned since of the chunks that the registry takes.
    """

    def __init__(
        self,
        wire: Wire,
        start: str,
        scopes: Scopes,
        blob: Blob,
        *,
        exists: Callable[[], bool],
        tell: Callable[[int], None],
        chunk: int,
        session: str = "",
    ) -> None:
        self._wire, self._start, self._scopes, self._blob = wire, start, scopes, blob
        self._exists, self._tell = exists, tell
        # `takes`: what was learned of the registry; `_chunked`: how this blob goes.
        self.takes = self._chunk = chunk
        self._chunked, self._least = chunk > 0, 0
        self._location = session
        self._offset = self._told = self._restarts = 0
        self._lost = self._finishing = False
        self._what = f"uploading the layer {blob.what!r}"
        self._attempts = wire.attempts(self._what, f"{blob.digest} to {wire.target.host}")

    def run(self) -> None:
        """Send the blob.

        Raises:
            RegistryError: the registry fails for good.
            BuildError: the blob was altered; the registry never got all of it.
            StoppedError: the wire was stopped.
        """
        while True:
            try:
                if self._step():
                    return
            except TransientError as problem:
                self._lost = True
                self._attempts.failed(problem)

    def _step(self) -> bool:
        """Do the next thing; whether it was the last."""
        if self._lost and self._find_again():
            return True
        if not self._location:
            self._begin()
        if self._offset + self._length() == self._blob.size:
            return self._finish()
        self._append()
        return False

    def _length(self) -> int:
        left = self._blob.size - self._offset
        return min(self._chunk, left) if self._chunked else left

    def _begin(self) -> None:
        answer = self._wire.send(Request("POST", self._start, self._scopes))
        if answer.status != 202 or not answer.header("Location"):
            raise self._wire.refusal(self._what, answer)
        self._moved(answer)
        least = answer.header("OCI-Chunk-Min-Length")
        self._least = int(least) if least.isdecimal() else 0
        self._chunk = max(self._chunk, self._least)

    def _append(self) -> None:
        answer = self._send("PATCH", self._location)
        if answer.status in {201, 202, 204}:
            self._moved(answer)
            self._offset += self._length()
            self._attempts.reached(self._offset)
        elif answer.status == 413 and self._smaller():
            return
        elif answer.status in _NO_CHUNKS or (answer.status == 416 and self._offset == 0):
            self.takes, self._chunked = 0, False
            self._restart(answer)
        elif answer.status == 416:
            # It is not where we believe it to be: ask.
            raise TransientError("the registry expects another part")
        elif answer.status in {400, 404}:
            self._restart(answer)
        else:
            raise self._wire.refusal(self._what, answer)

    def _finish(self) -> bool:
        mark = "&" if "?" in self._location else "?"
        self._finishing = True
        answer = self._send(
            "PUT", f"{self._location}{mark}digest={quote(self._blob.digest, safe='')}", self._wire.patience.commit
        )
        if answer.status == 416 and self._offset:
            raise TransientError("the registry expects another part")
        if answer.status == 413 and self._smaller():
            return False
        if answer.status in {400, 404, 416}:
            # What was read here is the blob: either its parts arrived otherwise, or the session is gone.
            self._chunked = self._chunked and answer.status == 404
            self._restart(answer)
            return False
        if answer.status not in {201, 204}:
            raise self._wire.refusal(self._what, answer)
        if answer.header("Docker-Content-Digest") not in {"", self._blob.digest}:
            raise RegistryError(
                f"{self._what} failed: the registry took it for {self._wire.scrub(answer.header('Docker-Content-Digest'))}",
                where=f"{self._blob.digest} to {self._wire.target.host}",
                fix="do not use this registry: something alters what it is sent",
            )
        return True

    def _send(self, method: str, url: str, wait: float = 0) -> Answer:
        start, length = self._offset, self._length()

        def body() -> Piece:
            # Told anew for every go of a request.
            self._rewind(start)
            return Piece(self._blob, start, length, self._count, self._wire.stopped)

        headers = {"Content-Type": "application/octet-stream"}
        if length < self._blob.size:
            headers["Content-Range"] = f"{start}-{start + length - 1}"
        return self._wire.send(Request(method, url, self._scopes, headers, body, wait))

    def _smaller(self) -> bool:
        """After a request that was too large: whether a smaller chunk is left to try."""
        least = max(_SMALLEST, self._least)
        if not self._chunked or self._length() <= least:
            return False
        self.takes = self._chunk = max(least, self._length() // 2)
        self._lost = True
        return True

    def _find_again(self) -> bool:
        """After a cut: how far the registry got; whether it has all."""
        if self._finishing and self._exists():
            self._count(self._blob.size - self._told)
            return True
        offset = -1
        if self._location and self._chunked:
            answer = self._wire.send(Request("GET", self._location, self._scopes))
            known = re.fullmatch(r"(?:bytes=)?0-(\d+)", answer.header("Range").strip())
            if answer.status in {200, 202, 204} and known:
                # A session without a byte says 0-0, as one with a byte does.
                offset = int(known[1]) + 1 if int(known[1]) else 0
                self._moved(answer)
        if not 0 <= offset <= self._blob.hashed:
            offset, self._location = 0, ""
        self._lost = False
        self._offset = offset
        self._attempts.reached(offset)
        self._rewind(offset)
        return False

    def _restart(self, answer: Answer) -> None:
        """Begin again after an answer that leaves no way on.

        Raises:
            RegistryError: it was so too often.
        """
        self._restarts += 1
        if self._restarts > _RESTARTS:
            raise self._wire.refusal(self._what, answer)
        self._location, self._offset = "", 0
        # Chunks in two sessions came to nothing: one request needs no session to last.
        self._chunked = self._chunked and self._restarts < _RESTARTS
        self._rewind(0)

    def _moved(self, answer: Answer) -> None:
        if location := answer.header("Location"):
            self._location = resolve(self._wire.target.host, answer.url, location)

    def _count(self, count: int) -> None:
        self._told += count
        self._tell(count)

    def _rewind(self, offset: int) -> None:
        if self._told != offset:
            self._count(offset - self._told)
