"""Bringing one file from one place: over HTTP with range requests (RFC 9110, section 14), or from a folder; hashed on the way.

What is there already is not asked for again. It may be of another file, though, so bytes that came in more than one go and
turn out wrong are fetched once more from the start before that is an error.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
import urllib3

from common.errors import LockError, MissingEnvironmentError
from common.files import CHUNK
from lockfiles.model import Artifact
from lockfiles.store.part import Part, StoppedError

_TRIES = 3
_PAUSE = 0.3
# Bytes asked of the line at once: what a killed process loses at most.
_SMALL, _LARGE = 1 << 14, 1 << 18
_QUICK = 0.1
_TIMEOUT = (20, 60)
# RFC 9110, 15.5: what is not there, and will not be there in a moment either.
_ABSENT = frozenset({404, 410})


class UnreachableError(MissingEnvironmentError):
    """A place does not answer, or refuses."""


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere files are asked for.

    Attributes:
        locate: the address of a file there, http, https or file; empty where there is none. May ask the network.
        where: how a message names the file there; never by an address that may carry credentials.
        unreachable: what to do when it does not answer.
        altered: what to do when it has other bytes than the lock says.
    """

    locate: Callable[[Artifact], str]
    where: Callable[[Artifact], str]
    unreachable: str
    altered: str


def bring(place: Place, part: Part, session: requests.Session, tell: Callable[[int], None], stop: threading.Event) -> bool:
    """Complete the part with what the place has and give the file its name; False when the place does not have it.

    Args:
        place: where to ask.
        part: what is there so far.
        session: carries the user's authentication and certificates.
        tell: is told how many bytes there are.
        stop: gives up when set.

    Raises:
        LockError: the place has other bytes than the lock says; nothing of them is kept.
        UnreachableError: it does not answer; what came is kept.
        StoppedError: `stop` was set.
    """
    artifact, failures, again = part.artifact, 0, False
    while True:
        before, resumed = part.size, part.size > 0
        try:
            address = place.locate(artifact)
            if not address:
                return False
            for chunk in _rest(address, part, session):
                if stop.is_set():
                    raise StoppedError
                # Counted from here: a server that starts over, started over.
                resumed = resumed and part.size > 0
                part.write(chunk)
                tell(part.size)
                if part.size > artifact.size:
                    break
            if part.size < artifact.size:
                raise requests.ConnectionError(f"{part.size} of {artifact.size} bytes")
        except FileNotFoundError:
            return False
        except (requests.RequestException, urllib3.exceptions.HTTPError) as problem:
            if _status(problem) in _ABSENT:
                return False
            # A connection that is cut every now and then gets there in the end.
            failures = 1 if part.size >= before + CHUNK else failures + 1
            if failures == _TRIES:
                raise UnreachableError(
                    f"{artifact.file} cannot be fetched: {_reason(problem)}", where=place.where(artifact), fix=place.unreachable
                ) from None
            stop.wait(_PAUSE * failures)
            continue
        if part.sha256 == artifact.sha256:
            part.place()
            return True
        wrong = f"the bytes are sha256 {part.sha256}, the lock says {artifact.sha256}"
        if part.size > artifact.size:
            wrong = f"more bytes than the lock's {artifact.size}"
        part.restart()
        tell(0)
        if again or not resumed:
            raise LockError(f"{artifact.file}: {wrong}", where=place.where(artifact), fix=place.altered)
        again = True


def _rest(address: str, part: Part, session: requests.Session) -> Iterator[bytes]:
    """What is missing of the part, after putting it back to its start where the server does not go on from there."""
    if part.size == part.artifact.size:
        return
    if address.startswith("file:"):
        with Path(unquote(urlsplit(address).path)).open("rb") as file:
            file.seek(part.size)
            while chunk := file.read(CHUNK):
                yield chunk
        return
    for _ in range(2):
        # Parts of a compressed answer would not fit together.
        headers = {"Accept-Encoding": "identity"}
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
            headers |= {"If-Range": part.etag} if part.etag else {}
        with session.get(address, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
            if part.size and (answer.status_code == requests.codes.requested_range_not_satisfiable or _elsewhere(answer, part)):
                part.restart()
                continue
            answer.raise_for_status()
            if answer.status_code != requests.codes.partial_content:
                part.restart(_strong(answer))
            yield from _pieces(answer)
        return


def _pieces(answer: requests.Response) -> Iterator[bytes]:
    """The body as it comes: in large pieces from a fast line, for speed; in small ones from a slow one, to lose little."""
    amount = _SMALL
    while True:
        began = time.monotonic()
        # Not iter_content: some servers call a .tar.gz an encoding, and it would be unpacked.
        piece = answer.raw.read(amount, decode_content=False)
        if not piece:
            return
        amount = min(2 * amount, _LARGE) if time.monotonic() - began < _QUICK else _SMALL
        yield piece


def _elsewhere(answer: requests.Response, part: Part) -> bool:
    """Whether a server that answers with a part of a file answers with another part than asked for, or of another file."""
    if answer.status_code != requests.codes.partial_content:
        return False
    span = re.match(r"bytes (\d+)-\d+/(\d+|\*)$", answer.headers.get("Content-Range", "").strip())
    return span is None or int(span[1]) != part.size or span[2] not in {"*", str(part.artifact.size)}


def _strong(answer: requests.Response) -> str:
    """The file's name on the server, where it changes with every byte (RFC 9110, 13.1.5)."""
    etag = str(answer.headers.get("ETag", ""))
    return "" if etag.startswith("W/") else etag


def _status(problem: Exception) -> int:
    answer = getattr(problem, "response", None)
    return 0 if answer is None else int(answer.status_code)


def _reason(problem: Exception) -> str:
    # An address may carry credentials, and a library's message may carry the address: only the kind is told.
    if status := _status(problem):
        return f"the server answers {status}"
    text = str(problem) if type(problem) is requests.ConnectionError and "bytes" in str(problem)[-6:] else ""
    return f"{type(problem).__name__} {text}".strip()
