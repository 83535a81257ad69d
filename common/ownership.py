"""Files and folders that this user alone can have written.

For places whose content is believed, such as the cache: who may write there decides what is taken for fetched, built or
checked, and through a link also what of this user's is overwritten.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from common.errors import MissingEnvironmentError

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def check(path: Path) -> None:
    """Refuse what somebody else could have written; what is not there passes, and what nobody lets us look at.

    Args:
        path: a file or folder. The folders above it are not looked at.

    Raises:
        MissingEnvironmentError: it is a link or no ordinary file, belongs to another user, or others may write to it.
    """
    try:
        about = path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    _check(about, path)


def opened(path: Path, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
    """Open a file that nobody else could have written; returns its descriptor.

    Args:
        path: the file.
        flags: as of open(2).
        mode: of a file that is made.

    Raises:
        MissingEnvironmentError: as `check`.
        OSError: it cannot be opened.
    """
    check(path)
    # Between the look and the opening it may have become a link, or a pipe that would wait for ever.
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
    try:
        _check(os.fstat(fd), path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check(about: os.stat_result, path: Path) -> None:
    wrong = ""
    if stat.S_ISLNK(about.st_mode):
        wrong = "a link"
    elif not (stat.S_ISDIR(about.st_mode) or stat.S_ISREG(about.st_mode)):
        wrong = "neither file nor folder"
    elif about.st_uid != os.geteuid():
        wrong = f"of the user with number {about.st_uid}, and this is {os.geteuid()}"
    elif about.st_mode & _OTHERS:
        wrong = f"for others to write (mode {stat.S_IMODE(about.st_mode):04o})"
    if wrong:
        fix = "remove it, or take the right to write from others (chmod go-w); or set PINWHEEL_CACHE to a folder of your own"
        raise MissingEnvironmentError(f"what lies in the cache is {wrong}: it is not believed", where=str(path), fix=fix)
