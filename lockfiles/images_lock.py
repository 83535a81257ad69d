"""`lockfiles/images.lock`: which digest each image name stands for, written by `invoke push`, read by `invoke deploy`.

TOML: `format`, then one `[[image]]` table per image, sorted by name, with the fields of `PinnedImage`; `driver` and `compute`
only where the image asks for a GPU. No registry in it: where an image lies is the environment's business.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import paths, reader
from common.errors import LockError
from common.files import write_whole
from oci.reference import check_digest

FORMAT = 1
_CAPABILITY = re.compile(r"[0-9]+\.[0-9]+")
_HEAD = (
    "# Written by `invoke push` after the digest was read back from the registry. Commit it: `invoke deploy` pins from it.\n"
)


@dataclass(frozen=True, slots=True)
class PinnedImage:
    """One image that lies in a registry.

    Attributes:
        name: repository name, `llama-factory-train`.
        digest: of the image manifest.
        version: the tag it was pushed under, for people.
        driver: the oldest branch of NVIDIA's driver that runs this digest; 0 where it asks for no GPU.
        compute: the compute capabilities it holds code for, `7.5`.
    """

    name: str
    digest: str
    version: str
    driver: int = 0
    compute: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImagesLock:
    """The file: its format and its tables."""

    format: int
    image: tuple[PinnedImage, ...] = ()


def path() -> Path:
    """Where the lock lies."""
    return paths.LOCKFILES / "images.lock"


def write(images: Iterable[PinnedImage]) -> None:
    """Write the lock, whole or not at all; images that are not named keep their line.

    Raises:
        LockError: the lock that is there was edited into something else.
    """
    with _alone(path().parent):
        merged = {image.name: image for image in read()} if path().exists() else {}
        merged |= {image.name: image for image in images}
        tables = map(_table, sorted(merged.values(), key=lambda image: image.name))
        write_whole(path(), f"{_HEAD}format = {FORMAT}\n" + "".join(tables))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One writer at a time: of two pushes that end together neither loses its lines."""
    folder.mkdir(parents=True, exist_ok=True)
    # The folder itself is locked: a lock file would lie among the files of the repository.
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _table(image: PinnedImage) -> str:
    lines = [f'name = "{image.name}"', f'digest = "{image.digest}"', f'version = "{image.version}"']
    if image.driver:
        lines += [f"driver = {image.driver}", f"compute = {json.dumps(image.compute)}"]
    return "\n".join(["", "[[image]]", *lines, ""])


def read() -> tuple[PinnedImage, ...]:
    """The pinned images, sorted by name.

    Raises:
        LockError: the lock is absent or was edited into something else.
    """
    try:
        lock = reader.record(ImagesLock, tomllib.loads(path().read_text()))
        if lock.format != FORMAT:
            raise ValueError(f"format {lock.format}")
        for image in lock.image:
            check_digest(image.digest)
            _check_gpu(image)
        if len({image.name for image in lock.image}) != len(lock.image):
            raise ValueError("a name stands twice")
        return tuple(sorted(lock.image, key=lambda image: image.name))
    except FileNotFoundError:
        raise LockError("no image was pushed yet", where=paths.shown(path()), fix="run `invoke push` first") from None
    except ValueError as problem:
        raise LockError(
            f"not an images lock: {problem}", where=paths.shown(path()), fix="restore it from git, or remove it and push again"
        ) from None


def _check_gpu(image: PinnedImage) -> None:
    """Refuse what no push writes: one of the two without the other, or what is no version."""
    if image.driver < 0 or bool(image.driver) != bool(image.compute):
        raise ValueError(f"{image.name}: a driver and compute capabilities stand together, or neither does")
    for capability in image.compute:
        if not _CAPABILITY.fullmatch(capability):
            raise ValueError(f"{image.name}: not a compute capability: {capability!r}")
