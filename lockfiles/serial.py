"""The serial number of an SBOM: a UUID of all it is made from, so that one is written anew only when it would say otherwise."""

from __future__ import annotations

import importlib.metadata
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict

from lockfiles.model import BaseLock, SetLock

# Of the serial numbers of our SBOMs; drawn once.
_NAMESPACE = uuid.UUID("7b1d2c52-5a0e-4f3c-9a53-0c8d6f2f7e11")
# Bumped when the code that writes SBOMs says something else of the same locks.
_FORMAT = 2


def number(*, name: str, version: str, base: BaseLock, lock: SetLock, files: Mapping[str, str]) -> uuid.UUID:
    """The serial number (RFC 9562, version 5).

    Args:
        name: the image's.
        version: the image's.
        base: its base.
        lock: its set.
        files: its files from the repository: sha256 by path.
    """
    writer = importlib.metadata.version("cyclonedx-python-lib")
    content = [_FORMAT, writer, name, version, asdict(base), asdict(lock), dict(files)]
    return uuid.uuid5(_NAMESPACE, json.dumps(content, sort_keys=True, separators=(",", ":")))
