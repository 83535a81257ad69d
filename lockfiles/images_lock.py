"""`lockfiles/images.lock`: which digest each image name stands for, written by `invoke push`, read by `invoke deploy`.

TOML: `format` and `checksum` (over the images' names), then one `[[image]]` table per image, sorted by name, with the fields of
`PinnedImage`; `driver` and `compute` only where the image asks for a GPU; `check` at the end, over that table alone. Format 1
is read too: it has neither `checksum` nor `check`. No registry in it: where an image lies is the environment's business.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import console, paths, reader
from common.errors import LockError
from common.files import sha256_bytes, write_whole
from oci.reference import check_digest

FORMAT = 2
_CAPABILITY = re.compile(r"[0-9]+\.[0-9]+")
_RESTORE = "restore it from git, or remove it and push again"
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
class ImageTable(PinnedImage):
    """A table of the file."""

    check: str = ""


@dataclass(frozen=True, slots=True)
class _Document:
    """The file: its format, its checksum and its tables."""

    format: int
    checksum: str = ""
    image: tuple[ImageTable, ...] = ()


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
        head = f'{_HEAD}format = {FORMAT}\nchecksum = "{_checksum(merged)}"\n'
        write_whole(path(), head + "".join(tables))


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
    lines.append(f'check = "{_check(image)}"')
    return "\n".join(["", "[[image]]", *lines, ""])


def _check(image: PinnedImage) -> str:
    # Against slips and merges, as in the other locks: not against an enemy, who could write this as well.
    return _digest([image.name, image.digest, image.version, image.driver, image.compute])[:8]


def _checksum(names: Iterable[str]) -> str:
    return "sha256:" + _digest([FORMAT, sorted(names)])


def _digest(body: object) -> str:
    return sha256_bytes(json.dumps(body, separators=(",", ":")).encode()).removeprefix("sha256:")


def check() -> None:
    """Check the lock against itself, if there is one; asks no network.

    Raises:
        LockError: it was edited.
    """
    if path().exists() and _read()[0] == 1:
        console.warn(f"{paths.shown(path())} has the older form, without checks: the next `invoke push` writes the newer")


def read() -> tuple[PinnedImage, ...]:
    """The pinned images, sorted by name.

    Raises:
        LockError: the lock is absent or was edited.
    """
    return _read()[1]


def _read() -> tuple[int, tuple[PinnedImage, ...]]:
    """The format and the images."""
    try:
        text = path().read_text()
        lock = reader.record(_Document, tomllib.loads(text))
        if lock.format not in {1, FORMAT}:
            raise ValueError(f"format {lock.format}, this Pinwheel reads 1 and {FORMAT}")
        if len({image.name for image in lock.image}) != len(lock.image):
            raise ValueError("a name stands twice")
        images = tuple(PinnedImage(*dataclasses.astuple(line)[:-1]) for line in lock.image)
        for image, line in zip(images, lock.image, strict=True):
            check_digest(image.digest)
            _check_gpu(image)
            if line.check != (_check(image) if lock.format == FORMAT else ""):
                at = text[: text.find(f'name = "{image.name}"')].count("\n") + 1
                raise LockError(
                    f"{image.name}: edited by hand: its check does not fit", where=f"{paths.shown(path())}:{at}", fix=_RESTORE
                )
        if lock.checksum != (_checksum(image.name for image in images) if lock.format == FORMAT else ""):
            raise ValueError("edited by hand: which images there are does not fit the checksum")
        return lock.format, tuple(sorted(images, key=lambda image: image.name))
    except FileNotFoundError:
        raise LockError("no image was pushed yet", where=paths.shown(path()), fix="run `invoke push` first") from None
    except ValueError as problem:
        raise LockError(f"not an images lock: {problem}", where=paths.shown(path()), fix=_RESTORE) from None


def _check_gpu(image: PinnedImage) -> None:
    """Refuse what no push writes: one of the two without the other, or what is no version."""
    if image.driver < 0 or bool(image.driver) != bool(image.compute):
        raise ValueError(f"{image.name}: a driver and compute capabilities stand together, or neither does")
    for capability in image.compute:
        if not _CAPABILITY.fullmatch(capability):
            raise ValueError(f"{image.name}: not a compute capability: {capability!r}")
