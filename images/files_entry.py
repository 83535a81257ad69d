"""The entries of `[[files]]` in image.toml and shared.toml: which files of the repository go into an image, and how.

What an entry may say is checked here, without looking at any file; images/files.py reads the files.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass

from common.reader import Keys

ROOT, USER = "root", "user"
# No image holds these, whatever `include` says: bytecode of this machine's interpreter, and git's own folder.
NEVER = ("__pycache__", ".git", "*.pyc")
# Where the kernel or the engine mounts something over the image when a container runs.
_MOUNTED = ("/dev", "/proc", "/run", "/sys", "/tmp")  # noqa: S108 - in the image
# What the configuration layer writes, which lies above the files: it would hide them.
WRITTEN_LATER = (
    *("/app", "/etc/group", "/etc/passwd", "/opt/venv/pyvenv.cfg"),
    *("/opt/venv/bin/python", "/opt/venv/bin/python3", "/opt/venv/bin/python3.11"),
)
_MODE = re.compile(r"0?[0-7]{3}")
_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class FilesEntry:
    """One entry: a file, or a folder with all files below it.

    Attributes:
        source: `from`: the path in the repository, with `/`.
        to: the absolute path in the image, of the file or of the folder.
        include: patterns of paths relative to `source`; where there are any, only what matches one goes into the image.
        exclude: patterns of paths relative to `source` that do not go into the image.
        mode: permission bits of the files.
        owner: `root` or `user`, the image's user.
        stated: the file that holds the entry, and which entry it is, for messages: `images/shared.toml, files[0]`.
    """

    source: str
    to: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    mode: int
    owner: str
    stated: str

    @property
    def folder_mode(self) -> int:
        """The permission bits of its folders: whoever may read a file may also enter the folders (x where r is)."""
        return self.mode | (self.mode & 0o444) >> 2

    @property
    def label(self) -> str:
        """The entry in messages."""
        return f'[[files]] from = "{self.source}"'


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern matches the path or one of the folders above it; `*` matches `/` too."""
    parts = path.split("/")
    above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    return any(fnmatch.fnmatchcase(place, pattern) for pattern in patterns for place in above)


def never(name: str) -> bool:
    """Whether a file or folder of this name is in no image."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in NEVER)


def problem_of_name(name: str) -> str:
    """What is wrong with the name of a file or folder of an image; empty: nothing."""
    if name in ("", ".", ".."):
        return f"{name!r} is no name of a file"
    if any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 or 0xD800 <= ord(character) < 0xE000 for character in name):
        return f"{name!r} holds a control character, or is not UTF-8"
    if len(name.encode()) > _LONGEST_NAME:
        return f"{name[:20]}… is longer than {_LONGEST_NAME} bytes"
    # OCI image spec 1.1, "Whiteouts": such a file takes another one away.
    return f"{name!r} starts with .wh., with which a layer deletes files of others" if name.startswith(".wh.") else ""


def read(keys: Keys, workdir: str) -> tuple[FilesEntry, ...]:
    """The entries of one settings file.

    Args:
        keys: of the file; takes `files` out.
        workdir: of the image.

    Raises:
        UsageError: an entry says something that cannot be, or may not be.
    """
    return tuple(_entry(entry, workdir) for entry in keys.each("files"))


def _entry(keys: Keys, workdir: str) -> FilesEntry:
    mode, owner = _mode(keys), keys.choice("owner", (ROOT, USER))
    if not mode & (0o400 if owner == USER else 0o004):
        raise keys.refused("mode", f"with {mode:04o} the image's user could not read the files of {owner}")
    entry = FilesEntry(
        source=_source(keys),
        to=_to(keys, workdir),
        include=keys.texts("include", ()),
        exclude=keys.texts("exclude", ()),
        mode=mode,
        owner=owner,
        stated=f"{keys.file}, {keys.where}",
    )
    keys.end()
    return entry


def _source(keys: Keys) -> str:
    path = keys.text("from")
    if path.startswith("/"):
        raise keys.refused("from", f"expected a path relative to the repository, got {path!r}")
    if problem := _problem(path):
        raise keys.refused("from", problem, "name a file or a folder of the repository, without . and ..")
    return path


def _to(keys: Keys, workdir: str) -> str:
    path = keys.text("to")
    fix = 'name a place of its own, such as "/opt/NAME"'
    if not path.startswith("/"):
        raise keys.refused("to", f"expected an absolute path in the image, got {path!r}", fix)
    if problem := _problem(path[1:]):
        raise keys.refused("to", problem, fix)
    for folder in (*_MOUNTED, workdir):
        if f"{path}/".startswith(f"{folder}/"):
            raise keys.refused("to", f"{folder} is mounted over when a container runs, which hides what lies in it", fix)
    for place in WRITTEN_LATER:
        if path == place or (path.startswith(f"{place}/") and place != "/app"):
            raise keys.refused("to", f"{place} is written by the configuration layer", fix)
    return path


def _problem(path: str) -> str:
    return next(filter(None, map(problem_of_name, path.split("/"))), "")


def _mode(keys: Keys) -> int:
    text = keys.text("mode", "0644")
    if not _MODE.fullmatch(text):
        raise keys.refused(
            "mode", f'expected permission bits such as "0644" or "0755", no set-ID and no sticky bit, got {text!r}'
        )
    mode = int(text, 8)
    if mode & 0o002:
        raise keys.refused("mode", f"with {text} anybody could write the files", 'use "0644" or "0755"')
    return mode
