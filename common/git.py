"""What git says of this checkout."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from common import paths
from common.errors import MissingEnvironmentError
from common.run import run


def revision() -> str:
    """The commit checked out, with `-dirty` when files differ or are new; `unknown` outside git."""
    try:
        head = run(["git", "-C", paths.ROOT, "rev-parse", "HEAD"])
        changed = run(["git", "-C", paths.ROOT, "status", "--porcelain", "--untracked-files=normal"])
    except MissingEnvironmentError:
        return "unknown"
    if head.code or changed.code:
        return "unknown"
    return head.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


def ignored(files: Iterable[Path]) -> tuple[str, ...]:
    """Those of these files of the checkout that git ignores and does not hold all the same; none outside git."""
    names = "\0".join(sorted({str(file.relative_to(paths.ROOT)) for file in files if file.is_relative_to(paths.ROOT)}))
    try:
        answer = run(["git", "-C", paths.ROOT, "check-ignore", "-z", "--stdin"], stdin=names)
    except MissingEnvironmentError:
        return ()
    return tuple(filter(None, answer.stdout.split("\0"))) if answer.code == 0 else ()
