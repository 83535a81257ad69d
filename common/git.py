"""What git says of this checkout."""

from __future__ import annotations

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
