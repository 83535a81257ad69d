"""`lockfiles/images.lock`: which digest each image name stands for, written by `invoke push`, read by `invoke deploy`.

TOML: `format`, then one `[[image]]` table per image, sorted by name, with the fields of `PinnedImage`. No registry in it:
where an image lies is the environment's business.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common import paths
from common.errors import LockError
from common.files import write_whole
from common.refs import check_digest

FORMAT = 1
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
    """

    name: str
    digest: str
    version: str


def path() -> Path:
    """Where the lock lies."""
    return paths.LOCKFILES / "images.lock"


def write(images: Iterable[PinnedImage]) -> None:
    """Write the lock, whole or not at all; images that are not named keep their line.

    Raises:
        LockError: the lock that is there was edited into something else.
    """
    merged = {image.name: image for image in read()} if path().exists() else {}
    merged |= {image.name: image for image in images}
    tables = [
        f'\n[[image]]\nname = "{i.name}"\ndigest = "{i.digest}"\nversion = "{i.version}"\n'
        for i in sorted(merged.values(), key=lambda i: i.name)
    ]
    write_whole(path(), f"{_HEAD}format = {FORMAT}\n" + "".join(tables))


def read() -> tuple[PinnedImage, ...]:
    """The pinned images, sorted by name.

    Raises:
        LockError: the lock is absent or was edited into something else.
    """
    try:
        body = tomllib.loads(path().read_text())
        if body["format"] != FORMAT:
            raise ValueError(f"format {body['format']!r}")
        images = tuple(PinnedImage(**image) for image in body.get("image", []))
        for image in images:
            check_digest(image.digest)
        if len({i.name for i in images}) != len(images):
            raise ValueError("a name stands twice")
        return tuple(sorted(images, key=lambda i: i.name))
    except FileNotFoundError:
        raise LockError("no image was pushed yet", where=paths.shown(path()), fix="run `invoke push` first") from None
    except (ValueError, KeyError, TypeError) as problem:
        raise LockError(
            f"not an images lock: {problem}", where=paths.shown(path()), fix="restore it from git, or remove it and push again"
        ) from None
