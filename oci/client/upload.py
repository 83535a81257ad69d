"""One blob into a registry, resumable (OCI distribution spec 1.1, "Pushing a blob in chunks" and "monolithically").

    POST  /v2/<name>/blobs/uploads/   a session: its Location; each later answer may give a new one
    PATCH <location>                  a chunk, Content-Range from byte to byte; all but the last
    PUT   <location>?digest=<digest>  the last chunk; the registry checks the digest
    GET   <location>                  after a cut: Range says how much arrived

The answers in between are not relied on, because some registries report an old Range; the digest at the end decides. If a
registry forgets a session, a new one is opened; if it refuses the size of a chunk, or a token runs out before a chunk is there,
smaller ones are sent; if it takes no chunks at all, the blob goes in one PUT.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import NoReturn
from urllib.parse import quote

from common.errors import RegistryError
from oci.client.answer import Answer
from oci.client.auth import RefusedError
from oci.client.blob import Blob, Piece
from oci.client.http import Request, Scopes
from oci.client.patience import TransientError
from oci.client.target import resolve
from oci.client.wire import Wire

_UNAUTHORIZED = 401
# Answers of registries, or of proxies before them, that know no PATCH, or none of this size.
_NO_CHUNKS = frozenset({405, 411, 413, 415, 501})
# New sessions for one blob, those after a cut not counted, before the upload fails.
_RESTARTS = 3
# Smaller chunks are not tried after a 413: proxies take that much by default.
_SMALLEST = 1 << 20
# Seconds: no token lasts shorter than that, so that what is refused sooner is refused for another reason.
_SLOW = 1.0
# Failures to open a session after which the registry is asked for its reason in another way.
_UNOPENED = 2


class Upload:
    """One upload.

    Args:
        wire: to the registry.
        start: the path that gives a session.
        scopes: that a token must allow.
        blob: what is sent.
        exists: tells whether the registry has the blob by now.
        tell: called with the number of bytes sent; a negative number when they must be sent again.
        chunk: bytes of a chunk; 0: send in one request.
        session: the upload that a failed mount opened; empty: ask for a new one.

    Attributes:
        takes: bytes of a chunk that the registry takes, as far as this upload found out; 0: none. At first `chunk`.
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
        # `takes`: what the registry accepts; `_chunked`: how this blob is sent.
        self.takes = self._chunk = chunk
        self._chunked, self._least = chunk > 0, 0
        self._location = session
        self._offset = self._reported = self._restarts = self._unopened = 0
        # Where the registry last said that another part is due.
        self._disputed = -1
        self._began = 0.0
        self._lost = self._finishing = False
        self._action = f"uploading the layer {blob.what!r}"
        self._attempts = wire.attempts(self._action, f"{blob.digest} to {wire.target.host}", sends=True)

    def run(self) -> None:
        """Send the blob.

        Raises:
            RegistryError: the registry refuses, or fails too often.
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
        """Send the next request; returns whether the upload is complete."""
        if self._lost and self._resume():
            return True
        if not self._location:
            self._begin()
        try:
            if self._offset + self._length() == self._blob.size:
                return self._finish()
            self._append()
        except RefusedError as problem:
            self._outlive(problem)
        return False

    def _length(self) -> int:
        left = self._blob.size - self._offset
        return min(self._chunk, left) if self._chunked else left

    def _begin(self) -> None:
        try:
            answer = self._wire.send(Request("POST", self._start, self._scopes))
        except TransientError:
            self._unopened += 1
            if self._unopened == _UNOPENED:
                self._ask_why()
            raise
        session = answer.header("Location") or answer.header("Docker-Upload-UUID")
        if not 200 <= answer.status < 300 or not session:
            raise self._wire.refusal(self._action, answer)
        # Where no address is named, it is the session's below the one that was asked (spec, "Docker-Upload-UUID").
        self._location = f"{self._start}{session}"
        self._follow(answer)
        least = answer.header("OCI-Chunk-Min-Length")
        self._least = int(least) if least.isdecimal() else 0
        self._chunk = max(self._chunk, self._least)

    def _ask_why(self) -> None:
        """Where opening a session is cut instead of refused, as some registries do without a repository: say their reason.

        Raises:
            RegistryError: the registry has one.
        """
        url = self._start.replace("/blobs/uploads/", "/manifests/latest")
        answer = self._wire.send(Request("GET", url, self._scopes))
        if "NAME_UNKNOWN" in answer.codes:
            raise self._wire.refusal(self._action, answer)

    def _append(self) -> None:
        answer = self._send("PATCH", self._location)
        if 200 <= answer.status < 300:
            self._follow(answer)
            self._offset += self._length()
            self._attempts.reached(self._offset)
        elif answer.status == 413 and self._shrink_chunk():
            return
        elif answer.status in _NO_CHUNKS or (answer.status == 416 and self._offset in {0, self._disputed}):
            self.takes, self._chunked = 0, False
            self._restart(answer)
        elif answer.status == 416:
            self._dispute()
        elif answer.status in {400, 404}:
            self._restart(answer)
        else:
            raise self._wire.refusal(self._action, answer)

    def _finish(self) -> bool:
        mark = "&" if "?" in self._location else "?"
        self._finishing = True
        answer = self._send(
            "PUT", f"{self._location}{mark}digest={quote(self._blob.digest, safe='')}", self._wire.patience.commit
        )
        if answer.status == 416 and self._offset not in {0, self._disputed}:
            self._dispute()
        if answer.status == 413 and self._shrink_chunk():
            return False
        if answer.status in {400, 404, 416}:
            # The bytes read here were right: either they arrived in another order, or the session is gone.
            self._chunked = self._chunked and answer.status == 404
            self._restart(answer)
            return False
        # Registries take a blob with any of these; that it is there is read back.
        if not 200 <= answer.status < 300:
            raise self._wire.refusal(self._action, answer)
        if answer.header("Docker-Content-Digest") not in {"", self._blob.digest}:
            raise RegistryError(
                f"{self._action} failed: the registry took it for {self._wire.scrub(answer.header('Docker-Content-Digest'))}",
                where=f"{self._blob.digest} to {self._wire.target.host}",
                fix="do not use this registry: something alters what it is sent",
            )
        return True

    def _dispute(self) -> NoReturn:
        """The registry holds another number of bytes than we believe: ask it. If it does not, it takes no second chunk.

        Raises:
            TransientError: always.
        """
        self._disputed = self._offset
        raise TransientError("the registry expects another part")

    def _send(self, method: str, url: str, wait: float = 0) -> Answer:
        start, length = self._offset, self._length()

        def body() -> Piece:
            # Counted again each time that the request is sent.
            self._rewind(start)
            self._began = time.monotonic()
            return Piece(self._blob, start, length, self._count, self._wire.stopped)

        headers = {"Content-Type": "application/octet-stream"}
        if length < self._blob.size:
            headers["Content-Range"] = f"{start}-{start + length - 1}"
        return self._wire.send(Request(method, url, self._scopes, headers, body, wait))

    def _outlive(self, problem: RefusedError) -> None:
        """After a refusal: a token that was fresh may have run out on the way, as behind proxies that hold a request back.

        Raises:
            RefusedError: the refusal has another reason.
            RegistryError: no smaller chunk is left to try.
        """
        took, lifetime = time.monotonic() - self._began, self._wire.token_lifetime
        if problem.status != _UNAUTHORIZED or not lifetime or took < _SLOW:
            raise problem
        if not self._shrink_chunk():
            lasts = f"the token of {self._wire.target.host} lasts {lifetime:.0f} s"
            what = f"{lasts}, and a request of {self._length()} bytes takes {took:.0f} s"
            raise RegistryError(what, where=self._blob.digest, fix="ask who runs the registry for tokens that last longer")

    def _shrink_chunk(self) -> bool:
        """After a request that was too large: take a smaller chunk; returns whether there is a smaller one to try."""
        shortest = max(_SMALLEST, self._least)
        if not self._chunked or self._length() <= shortest:
            return False
        self.takes = self._chunk = max(shortest, self._length() // 2)
        self._lost = True
        return True

    def _resume(self) -> bool:
        """After a cut: ask how far the registry got, and go on from there; returns whether it has the whole blob."""
        if self._finishing and self._exists():
            self._count(self._blob.size - self._reported)
            return True
        offset = -1
        if self._location and self._chunked:
            answer = self._wire.send(Request("GET", self._location, self._scopes))
            range_match = re.fullmatch(r"(?:bytes[= ])?0-(\d+)", answer.header("Range").strip())
            if answer.status in {200, 202, 204} and range_match:
                # A session without any byte answers 0-0, as one with a single byte does.
                offset = int(range_match[1]) + 1 if int(range_match[1]) else 0
                self._follow(answer)
        if not 0 <= offset <= self._blob.hashed:
            offset, self._location = 0, ""
        self._lost = False
        self._offset = offset
        self._attempts.reached(offset)
        self._rewind(offset)
        return False

    def _restart(self, answer: Answer) -> None:
        """Begin again after an answer that leaves no other way.

        Raises:
            RegistryError: there were too many new sessions.
        """
        self._restarts += 1
        if self._restarts > _RESTARTS:
            raise self._wire.refusal(self._action, answer)
        self._location, self._offset = "", 0
        # Chunks failed in two sessions: a single request does not depend on how long a session lives.
        self._chunked = self._chunked and self._restarts < _RESTARTS
        self._rewind(0)

    def _follow(self, answer: Answer) -> None:
        if location := answer.header("Location"):
            self._location = resolve(self._wire.target.host, answer.url, location)

    def _count(self, count: int) -> None:
        self._reported += count
        self._tell(count)

    def _rewind(self, offset: int) -> None:
        if self._reported != offset:
            self._count(offset - self._reported)
