"""Where things are. All paths are absolute; a stage asks here instead of guessing from its own file."""

from __future__ import annotations

import os
from pathlib import Path

from common import ownership

ROOT = Path(__file__).resolve().parent.parent
LOCKFILES = ROOT / "lockfiles"
IMAGES = ROOT / "images"
K8S = ROOT / "k8s"


def dist() -> Path:
    """Everything a run writes: the OCI layout, receipts, reports, rendered manifests. Safe to delete."""
    return _setting("PINWHEEL_DIST", ROOT / "dist")


def cache(*parts: str) -> Path:
    """What can be fetched or built again, shared by all checkouts of a user. Safe to delete.

    Args:
        parts: of a path in it.

    Raises:
        MissingEnvironmentError: somebody else could have written the cache, or what lies at that path or on the way to it.
    """
    place = _setting("PINWHEEL_CACHE", _setting("XDG_CACHE_HOME", Path.home() / ".cache") / "pinwheel")
    ownership.check(place)
    for part in parts:
        place /= part
        ownership.check(place)
    return place


def state() -> Path:
    """What the embedded registry keeps, and the log of an engine that Pinwheel started. Not safe to delete while they run."""
    return _setting("PINWHEEL_STATE", Path("/var/lib/pinwheel"))


def _setting(variable: str, default: Path) -> Path:
    return Path(os.environ.get(variable) or default).absolute()


def shown(path: Path) -> str:
    """A path as a message should show it: relative to the project where it lies inside."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
