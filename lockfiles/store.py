"""The store: every fetched or built artifact, by sha256, shared by all images and checkouts.

`<cache>/store/<first two hex digits>/<sha256>`. A file gets its name only after all its bytes were verified; it is then
read-only. Reading verifies again where the bytes enter an image.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import requests

from common import console, paths
from common.errors import LockError, MissingEnvironmentError
from common.files import CHUNK, sha256_file
from lockfiles.model import Artifact

_PARALLEL = 6
_TRIES = 3


def path(artifact: Artifact) -> Path:
    """Where the store keeps the artifact, whether it is there or not."""
    return paths.cache() / "store" / artifact.sha256[:2] / artifact.sha256


def has(artifact: Artifact) -> bool:
    """Whether the store holds the artifact, by name and size; its bytes are checked where they are used."""
    try:
        return path(artifact).stat().st_size == artifact.size
    except FileNotFoundError:
        return False


def verified(artifact: Artifact) -> Path:
    """The artifact's path, after its bytes were hashed.

    Raises:
        LockError: it is not in the store, or its bytes are not what the lock says; the bad file is removed.
    """
    file = path(artifact)
    try:
        actual = sha256_file(file).removeprefix("sha256:")
    except FileNotFoundError:
        raise LockError(f"{artifact.file} is not in the store", where=str(file), fix="run `invoke fetch`") from None
    except OSError as problem:
        raise MissingEnvironmentError(
            f"{artifact.file} cannot be read from the store: {problem.strerror}", where=str(file)
        ) from None
    if actual != artifact.sha256:
        file.unlink(missing_ok=True)
        raise LockError(
            f"{artifact.file}: the store's bytes are sha256 {actual}, the lock says {artifact.sha256}",
            where=str(file),
            fix="it was removed; run `invoke fetch` again, and check the disk",
        )
    return file


@contextmanager
def adding(artifact: Artifact, *, fix: str = "") -> Iterator[IO[bytes]]:
    """Open a file that becomes the artifact when the block ends, if its bytes are the artifact's.

    Args:
        artifact: what it must become.
        fix: what the user can do about other bytes; default: what fits a download.

    Raises:
        LockError: they are not; nothing is kept.
        MissingEnvironmentError: the disk is full.
    """
    target = path(artifact)
    target.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=target.parent, prefix=".part-")
    try:
        with os.fdopen(fd, "w+b") as out:
            yield out
            out.flush()
            out.seek(0)
            _check(artifact, out, fix or _ALTERED)
        Path(name).chmod(0o444)
        Path(name).replace(target)
    except OSError as problem:
        if problem.errno == errno.ENOSPC:
            free = "free some, or set PINWHEEL_CACHE to another disk"
            raise MissingEnvironmentError("no space left for the store", where=str(target.parent), fix=free) from None
        raise
    finally:
        Path(name).unlink(missing_ok=True)


def add_file(artifact: Artifact, source: Path, *, fix: str = "") -> None:
    """Copy a file into the store.

    Raises:
        LockError: its bytes are not the artifact's.
    """
    with adding(artifact, fix=fix) as out, source.open("rb") as file:
        while chunk := file.read(CHUNK):
            out.write(chunk)


def download(wanted: Iterable[Artifact], locate: Callable[[Artifact], str], session: requests.Session) -> None:
    """Fetch what the store lacks, several at a time, verified while streaming; nothing unverified ever gets a name.

    Args:
        wanted: the artifacts.
        locate: gives the address of one; may ask the network, and raise LockError.
        session: carries the user's authentication and certificates.

    Raises:
        LockError: an artifact is nowhere, or has other bytes than the lock says.
        MissingEnvironmentError: network or disk.
    """
    missing = sorted({a.sha256: a for a in wanted if not has(a)}.values(), key=lambda a: -a.size)
    if not missing:
        return
    with (
        console.Bar(f"fetching {len(missing)} files", sum(a.size for a in missing)) as bar,
        ThreadPoolExecutor(_PARALLEL) as pool,
    ):
        tasks = [pool.submit(_download, artifact, locate, session, bar) for artifact in missing]
        try:
            for task in tasks:
                task.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _download(artifact: Artifact, locate: Callable[[Artifact], str], session: requests.Session, bar: console.Bar) -> None:
    for attempt in range(1, _TRIES + 1):
        done = 0
        try:
            address = locate(artifact)
            with adding(artifact) as out, session.get(address, stream=True, timeout=(20, 60)) as answer:
                answer.raise_for_status()
                for chunk in answer.iter_content(CHUNK):
                    done += len(chunk)
                    if done > artifact.size:
                        raise LockError(f"{artifact.file}: more bytes than the lock's {artifact.size}", fix=_ALTERED)
                    out.write(chunk)
                    bar.advance(len(chunk))
                if done < artifact.size:
                    raise requests.ConnectionError(f"{done} of {artifact.size} bytes")
            return
        except requests.RequestException as problem:
            bar.advance(-done)
            if attempt == _TRIES:
                raise MissingEnvironmentError(
                    f"{artifact.file} cannot be fetched: {_reason(problem)}",
                    fix="check the network and your index configuration",
                ) from None


_ALTERED = "the index or a proxy serves an altered file; if it is meant, run `invoke lock`"


def _check(artifact: Artifact, file: IO[bytes], fix: str) -> None:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    actual = digest.hexdigest()
    if actual != artifact.sha256:
        raise LockError(f"{artifact.file}: the bytes are sha256 {actual}, the lock says {artifact.sha256}", fix=fix)


def _reason(problem: requests.RequestException) -> str:
    # An address may carry credentials, and a library's message may carry the address: only the kind is told.
    if problem.response is not None:
        return f"the server answers {problem.response.status_code}"
    text = str(problem) if type(problem) is requests.ConnectionError and "bytes" in str(problem)[-6:] else ""
    return f"{type(problem).__name__} {text}".strip()
