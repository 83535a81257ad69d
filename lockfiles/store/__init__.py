"""The store: every fetched or built artifact, by sha256, shared by all images and checkouts.

`<cache>/store/<first two hex digits>/<sha256>`. A file gets its name only after all its bytes were verified; it is then
read-only. Reading verifies again where the bytes enter an image. Until then it is a part (part.py), which survives a process
that is killed.
"""

from __future__ import annotations

import atexit
import os
import re
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import requests

from common import console, ownership, paths
from common.errors import LockError, MissingEnvironmentError
from common.files import CHUNK, FULL
from lockfiles.model import Artifact
from lockfiles.store import hashed, mirror
from lockfiles.store.part import ETAG, PREFIX, Part, in_use, locked
from lockfiles.store.transfer import Place, bring

_PARALLEL = 6
_USER = ".user-"
_OURS = re.compile(rf"[0-9a-f]{{64}}|{re.escape(PREFIX)}.*")
_ALTERED = "the index or a proxy serves an altered file; if it is meant, run `invoke lock`"
_UNREACHABLE = "check the network and your index configuration"


def path(artifact: Artifact) -> Path:
    """Where the store keeps the artifact, whether it is there or not.

    Raises:
        MissingEnvironmentError: somebody else could have written it.
    """
    return paths.cache("store", artifact.sha256[:2], artifact.sha256)


def has(artifact: Artifact) -> bool:
    """Whether the store holds the artifact, by name and size; its bytes are checked where they are used."""
    try:
        return path(artifact).stat().st_size == artifact.size
    except FileNotFoundError:
        return False


def missing(wanted: Iterable[Artifact]) -> list[Artifact]:
    """What the store lacks, the largest first. What it has is safe from another process's `prune` while this one runs."""
    _announce()
    absent = []
    for artifact in {a.sha256: a for a in wanted}.values():
        if not has(artifact):
            absent.append(artifact)
            continue
        with suppress(OSError):  # a store that cannot be written cannot be pruned
            # For its change time: needed just now.
            path(artifact).chmod(0o444)
    return sorted(absent, key=lambda a: (-a.size, a.sha256))


def verified(artifact: Artifact) -> Path:
    """The artifact's path, after its bytes were hashed.

    Whoever can write the store may put other bytes there afterwards: for readers that check the bytes again, as apt does by the
    sha256 of its list, or use them for no image. What gets into one is read by `opened`.

    Raises:
        LockError: it is not in the store, or its bytes are not what the lock says; the bad file is removed.
    """
    with opened(artifact):
        return path(artifact)


def opened(artifact: Artifact) -> AbstractContextManager[BinaryIO]:
    """The artifact, open for reading, after its bytes were hashed; see hashed.py."""
    return hashed.opened(artifact, path(artifact))


def verify(artifacts: Iterable[Artifact]) -> tuple[int, int]:
    """Hash artifacts in the store, on all cores; returns how many files and bytes.

    Raises:
        LockError: one is not there or altered; all were looked at, and the altered ones are removed.
    """
    wanted = sorted({a.sha256: a for a in artifacts}.values(), key=lambda a: (-a.size, a.sha256))
    total = sum(a.size for a in wanted)
    bad: list[LockError] = []

    def check(artifact: Artifact) -> int:
        try:
            verified(artifact)
        except LockError as problem:
            bad.append(problem)
        return artifact.size

    with console.Bar(f"checking {len(wanted)} files", total) as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for count in pool.map(check, wanted):
                bar.advance(count)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if bad:
        first = min(bad, key=lambda problem: problem.what)
        more = f"; and {len(bad) - 1} more files" if len(bad) > 1 else ""
        raise LockError(first.what + more, where=first.where, fix=first.fix)
    return len(wanted), total


@contextmanager
def adding(artifact: Artifact, *, fix: str = "") -> Iterator[Part]:
    """Open a part that becomes the artifact when the block ends, if its bytes are the artifact's.

    Args:
        artifact: what it must become.
        fix: what the user can do about other bytes; default: what fits a download.

    Raises:
        LockError: they are not; nothing is kept.
        MissingEnvironmentError: the disk is full.
    """
    with _part(artifact) as part:
        try:
            part.restart()
            yield part
            if part.sha256 != artifact.sha256:
                other = f"{artifact.file}: the bytes are sha256 {part.sha256}, the lock says {artifact.sha256}"
                raise LockError(other, fix=fix or _ALTERED)
            part.place()
        except BaseException:
            part.discard()
            raise


def add_file(artifact: Artifact, source: Path, *, fix: str = "") -> None:
    """Copy a file into the store.

    Raises:
        LockError: its bytes are not the artifact's.
    """
    with adding(artifact, fix=fix) as out, source.open("rb") as file:
        while chunk := file.read(CHUNK):
            out.write(chunk)


def download(wanted: Iterable[Artifact], locate: Callable[[Artifact], str], session: requests.Session) -> None:
    """Fetch what the store lacks, several at a time, from the user's mirror where it has it, verified while streaming.

    Args:
        wanted: the artifacts.
        locate: gives the address of one; may ask the network, and raise LockError.
        session: carries the user's authentication and certificates.

    Raises:
        LockError: an artifact is nowhere, or has other bytes than the lock says.
        MissingEnvironmentError: network or disk.
    """
    index = Place(locate, lambda _: "", _UNREACHABLE, _ALTERED)
    gone = take(wanted, (*mirror.places(), index), session)
    if gone:
        fix = "the index lists it and does not have it; " + _UNREACHABLE
        raise MissingEnvironmentError(f"{gone[0].file} cannot be fetched: the server answers 404", fix=fix)


def take(wanted: Iterable[Artifact], places: Sequence[Place], session: requests.Session) -> list[Artifact]:
    """Fetch what the store lacks, each file from the first place that has it; returns what none has.

    Nothing unverified ever gets a name. What was begun is kept for the next time when the network fails.

    Raises:
        LockError: a place has other bytes than the lock says.
        MissingEnvironmentError: a place does not answer, or the disk is full.
    """
    absent = missing(wanted)
    if not absent or not places:
        return absent
    stop = threading.Event()
    with (
        console.Bar(f"fetching {len(absent)} files", sum(a.size for a in absent)) as bar,
        ThreadPoolExecutor(_PARALLEL) as pool,
    ):
        tally = _Tally(bar)
        tasks = [pool.submit(_take, a, places, session, partial(tally.tell, a), stop) for a in absent]
        try:
            ended, _ = wait(tasks, return_when=FIRST_EXCEPTION)
            found = [task.result() for task in tasks if task in ended]
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [artifact for artifact, there in zip(absent, found, strict=True) if not there]


def prune(keep: Iterable[str]) -> tuple[int, int]:
    """Remove every artifact whose sha256 is not to be kept, and what killed processes left; returns how many files and bytes.

    What another living process adds, or has found in the store since it began, stays.
    """
    kept, root = frozenset(keep), _root()
    candidates = sorted(root.glob("??/*"))
    began, own = _now(root), _users.get(root)
    others = [file.stat().st_mtime_ns for file in root.glob(f"{_USER}*") if file != own and in_use(file)]
    since = min([began + 1, *others])
    files, total = 0, 0
    for folder in {file.parent for file in candidates}:
        ownership.check(folder)
    for file in candidates:
        if file.name.removeprefix(PREFIX).removesuffix(ETAG) in kept or not _OURS.fullmatch(file.name):
            continue
        if file.suffix == ETAG and file.with_suffix("").exists():
            # It goes with its part.
            continue
        try:
            about = file.lstat()
            if file.name.startswith(PREFIX):
                if in_use(file):
                    continue
            elif about.st_ctime_ns >= since:
                continue
            else:
                file.unlink()
        except FileNotFoundError:
            continue
        files, total = files + 1, total + about.st_size
    return files, total


class _Tally:
    """How far each file is, summed up in one bar. Safe for several threads."""

    def __init__(self, bar: console.Bar) -> None:
        self._bar, self._guard = bar, threading.Lock()
        self._at: dict[str, int] = {}

    def tell(self, artifact: Artifact, count: int) -> None:
        """`count` bytes of the artifact are there; fewer than before where it had to start over."""
        with self._guard:
            self._bar.advance(count - self._at.get(artifact.sha256, 0))
            self._at[artifact.sha256] = count


def _take(
    artifact: Artifact,
    places: Sequence[Place],
    session: requests.Session,
    tell: Callable[[int], None],
    stop: threading.Event,
) -> bool:
    with _part(artifact, stop) as part:
        if not has(artifact):
            part.resume()
            tell(part.size)
            if part.sha256 == artifact.sha256:
                # Killed between the last byte and the name.
                part.place()
            elif not any(bring(place, part, session, tell, stop) for place in places):
                return False
        # Otherwise another process was quicker.
        tell(artifact.size)
        return True


@contextmanager
def _part(artifact: Artifact, stop: threading.Event | None = None) -> Iterator[Part]:
    _announce()
    target = path(artifact)
    try:
        with Part(artifact, target, stop) as part:
            yield part
    except OSError as problem:
        if problem.errno in FULL:
            free = "free some, or set PINWHEEL_CACHE to another disk"
            raise MissingEnvironmentError("no space left for the store", where=str(target.parent), fix=free) from None
        raise


def _root() -> Path:
    return paths.cache("store")


# Files that this process keeps locked for as long as it lives: they tell `prune` since when somebody uses the store.
_users: dict[Path, Path] = {}
_users_guard = threading.Lock()


def _announce() -> None:
    root = _root()
    with _users_guard, suppress(OSError):
        if root not in _users:
            file = root / f"{_USER}{secrets.token_hex(8)}"
            locked(file)
            _users[root] = file
            atexit.register(_leave, file)


def _leave(file: Path) -> None:
    with suppress(OSError):
        file.unlink()


def _now(root: Path) -> int:
    """The file system's own time, which file times can be compared with."""
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=root) as file:
        return os.fstat(file.fileno()).st_mtime_ns
