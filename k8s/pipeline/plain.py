"""Files on the volume of a run, where steps that ran before may have put anything.

The steps share one volume and do not trust each other: a training runs what an experiment says. A link could lead a later step
to its key or its login, a pipe would hold it for ever. So each folder of a path is opened below the one before, and no link is
followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

from common.errors import PolicyError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def opened(file: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file; returns its descriptor.

    Args:
        file: absolute.
        flags: as of open(2).

    Raises:
        FileNotFoundError: there is none.
        PolicyError: it, or a folder on the way to it, is a link, a pipe, a device or something else.
        OSError: it cannot be opened.
    """
    parent = _folder(file.parent)
    try:
        fd = os.open(file.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644, dir_fd=parent)
    except OSError as problem:
        # ENXIO: a pipe that nobody reads, a socket, a device that is not there.
        if problem.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:
            raise _refused(file) from None
        raise _named(problem, file) from None
    finally:
        os.close(parent)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _refused(file)
    return fd


def read(file: Path, most: int = -1) -> bytes | None:
    """A file's bytes; None if there is none.

    Args:
        file: absolute.
        most: so many bytes at most are read.

    Raises:
        PolicyError, OSError: as `opened`.
    """
    try:
        with os.fdopen(opened(file), "rb") as data:
            return data.read(most)
    except FileNotFoundError:
        return None


def check_folder(folder: Path) -> None:
    """Refuse what is no folder.

    Raises:
        FileNotFoundError: there is none.
        PolicyError: it, or one on the way to it, is a link or a file.
    """
    os.close(_folder(folder))


def empty(folder: Path) -> None:
    """Make a folder that holds nothing, whatever lay there.

    Raises:
        PolicyError: a folder on the way to it is a link or a file.
        OSError: it cannot be emptied.
    """
    with contextlib.suppress(FileNotFoundError):
        check_folder(folder.parent)
        if folder.is_symlink() or not folder.is_dir():
            folder.unlink()
        else:
            shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _folder(folder: Path) -> int:
    fd = os.open("/", _FOLDER)
    for number, part in enumerate(folder.parts[1:], 2):
        try:
            below = os.open(part, _FOLDER, dir_fd=fd)
        except OSError as problem:
            where = Path(*folder.parts[:number])
            if problem.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise _refused(where, "folder") from None
            raise _named(problem, where) from None
        finally:
            os.close(fd)
        fd = below
    return fd


def _refused(path: Path, kind: str = "file") -> PolicyError:
    return PolicyError(f"{path} is not a plain {kind}: an earlier step put something else there")


def _named(problem: OSError, path: Path) -> OSError:
    """The error with the whole path: open(2) below a folder names the last part alone."""
    return OSError(problem.errno, problem.strerror, str(path))
