"""Changes to a copied checkout's locks: a small set beside the others, and one small package that moves to a newer version.

Runs where the copy is the project: what it writes goes into the copy's locks and store.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from common import paths
from common.errors import LockError
from common.files import sha256_file
from lockfiles import inputs, lockfile, store
from lockfiles.model import Artifact, SetLock, Wheel

SMALL = "small"
# In every set, pure Python, and asked for by nobody in one version only.
PACKAGE = "idna"


def add_small_set(root: str) -> None:
    """Write the input, the lock and the image spec of the small set, which is train's but for what it holds.

    Args:
        root: the package that the set is for: with what it asks for, out of the train set.

    Raises:
        LockError: the train set does not hold its root.
    """
    train = lockfile.read_set("train")
    held = {wheel.name: wheel for wheel in train.wheels}
    wanted, pending = set[str](), [root]
    while pending:
        name = pending.pop()
        if name not in held:
            raise LockError(f"{name} is not in train.lock, from which the small set is taken", fix="mend bench/images/bump.py")
        if name not in wanted:
            wanted.add(name)
            pending += [canonicalize_name(Requirement(need).name) for need in held[name].needs]
    (paths.LOCKFILES / f"{SMALL}.in").write_text(f'requires = ["{root}"]\n')
    wheels = tuple(wheel for wheel in train.wheels if wheel.name in wanted)
    digest = inputs.read_set(SMALL).digest
    lockfile.write_set(SetLock(SMALL, digest, train.date, train.python, train.glibc, wheels))
    (paths.IMAGES / SMALL).mkdir()
    own = {"name": SMALL, "set": SMALL, "about": root}
    head = (paths.IMAGES / "train" / "image.toml").read_text().partition("\n[")[0]
    text = re.sub(r"^(name|set|about) = .*$", lambda line: f'{line[1]} = "{own[line[1]]}"', head, flags=re.MULTILINE)
    (paths.IMAGES / SMALL / "image.toml").write_text(text + "\n")


class Bumps:
    """Moves one package in every lock that holds it, each time to a version that was not there before."""

    def __init__(self) -> None:
        self._locks = [lockfile.read_set(name) for name in inputs.set_names()]
        self._count = 0
        found = {wheel for lock in self._locks for wheel in lock.wheels if wheel.name == PACKAGE}
        if len(found) != 1:
            raise LockError(f"{PACKAGE} is not one and the same in all sets", fix="mend bench/images/bump.py")
        (self._before,) = found

    def next(self) -> None:
        """Make the newer wheel, put it into the store and into the locks."""
        self._count += 1
        after = newer(self._before, f"{self._before.version}.post{self._count}")
        for lock in self._locks:
            wheels = tuple(after if wheel.name == PACKAGE else wheel for wheel in lock.wheels)
            if wheels != lock.wheels:
                lockfile.write_set(replace(lock, wheels=wheels))


def newer(wheel: Wheel, version: str) -> Wheel:
    """The same wheel as another version, put into the store.

    Raises:
        LockError: the wheel's bytes are not the lock's.
    """
    with tempfile.TemporaryDirectory(prefix="pinwheel-bump-") as scratch:
        name, _, tags = wheel.artifact.file.split("-", 2)
        file = Path(scratch) / f"{name}-{version}-{tags}"
        _repack(store.verified(wheel.artifact), file, f"{name}-{wheel.version}", f"{name}-{version}")
        artifact = Artifact(file.name, file.stat().st_size, sha256_file(file).removeprefix("sha256:"))
        store.add_file(artifact, file)
    return replace(wheel, version=version, artifact=artifact)


def _repack(source: Path, target: Path, before: str, after: str) -> None:
    rows: list[tuple[str, str, str]] = []
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            data = old.read(info)
            path = info.filename.replace(f"{before}.dist-info/", f"{after}.dist-info/", 1)
            if path == f"{after}.dist-info/RECORD":
                continue
            if path == f"{after}.dist-info/METADATA":
                data = data.replace(f"\nVersion: {before.rpartition('-')[2]}\n".encode(), _version(after), 1)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append((path, f"sha256={digest}", str(len(data))))
            new.writestr(zipfile.ZipInfo(path), data, zipfile.ZIP_DEFLATED)
        record = io.StringIO()
        csv.writer(record, lineterminator="\n").writerows([*rows, (f"{after}.dist-info/RECORD", "", "")])
        new.writestr(zipfile.ZipInfo(f"{after}.dist-info/RECORD"), record.getvalue())


def _version(stem: str) -> bytes:
    return f"\nVersion: {stem.rpartition('-')[2]}\n".encode()
