"""Which wheels share a layer, and which layer lies on which. The figures behind it: docs/adr/0013.

A big wheel is alone: its bump touches nothing else. Small ones fall into a fixed number of buckets by their name, so that a
package that comes or goes moves no other. The heaviest lie at the bottom: a host unpacks again what lies above a layer that
changed, and it is the small ones that change. A layer's key is the digest of everything its bytes depend on.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.errors import UsageError
from images.spec import ImageSpec, Rules
from images.tarball import ZSTD_LEVEL, ZSTD_VERSION
from lockfiles.debian import rootfs
from lockfiles.model import BaseLock, SetLock, Wheel

# Bumped when the code that writes layers changes their bytes: a change must be meant.
FORMAT = 2
# Its scripts and its form of RECORD are in the layers.
_INSTALLER = importlib.metadata.version("installer")
# Wheels from this size on get a layer of their own, as far as there is room; the rest share the buckets.
BIG = 1_000_000
BUCKETS = 16
# Engines cap an image at 127 layers; ours has at most this many, base, files and configuration among them.
MOST = 100
ALONE = MOST - BUCKETS - 3


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file of the repository that goes into an image.

    Attributes:
        path: in the image, relative to the root.
        source: where it lies on this machine.
        size: bytes.
        sha256: of its bytes, hexadecimal.
        mode: permission bits.
        uid: of its owner and its group.
        entry: the entry of `[[files]]` that names it, for messages.
    """

    path: str
    source: Path
    size: int
    sha256: str
    mode: int
    uid: int
    entry: str


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """A folder of such files: its path in the image, permission bits, owner, and the entry of `[[files]]` for messages."""

    path: str
    mode: int
    uid: int
    entry: str


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One layer to be.

    Attributes:
        what: for people: the wheel, or which bucket.
        key: digest over all that decides its bytes.
        wheels: sorted by name; none for base and config.
        rules: what the spec says of its wheels' files, by package; only of those it says something of.
        files: sorted by path; only of the files layer.
        folders: those of the files, sorted by path, without the ones above them that are root's as everywhere.
    """

    what: str
    key: str
    wheels: tuple[Wheel, ...] = ()
    rules: tuple[tuple[str, Rules], ...] = ()
    files: tuple[ImageFile, ...] = ()
    folders: tuple[ImageFolder, ...] = ()

    @property
    def weight(self) -> int:
        """Bytes of its wheels, a measure of the work."""
        return sum(wheel.artifact.size for wheel in self.wheels)


def base_layer(base: BaseLock) -> LayerPlan:
    """The plan of the base layer."""
    return LayerPlan("base", _key("base", rootfs.key(base)))


def groups(wheels: Iterable[Wheel]) -> dict[str, tuple[Wheel, ...]]:
    """Which wheels share a layer: those of each layer by the layer's name, from the bottom up.

    A layer's name is the package's, or `bucket 07`. Where more wheels are big than there is room for, the smallest of them
    share the buckets as well: a big one more moves one other at most.
    """
    by_size = sorted(wheels, key=lambda wheel: (-wheel.artifact.size, wheel.name))
    alone = [wheel for wheel in by_size if wheel.artifact.size >= BIG][:ALONE]
    # By powers of two, then by name: a release that is a little larger than the last does not swap layers.
    found: dict[str, tuple[Wheel, ...]] = {
        w.name: (w,) for w in sorted(alone, key=lambda w: (-w.artifact.size.bit_length(), w.name))
    }
    for wheel in sorted(by_size[len(alone) :], key=lambda w: (_bucket(w.name), w.name)):
        name = f"bucket {_bucket(wheel.name):02d}"
        found[name] = (*found.get(name, ()), wheel)
    return found


def wheel_layers(base: BaseLock, lock: SetLock, spec: ImageSpec) -> tuple[LayerPlan, ...]:
    """The plans of all wheel layers, from the bottom up.

    Raises:
        UsageError: the spec states a conflict or a wrong RECORD of a package that the set does not hold.
    """
    held = {(wheel.name, wheel.version) for wheel in lock.wheels}
    names = {name for name, _ in held}
    for stale in [c for c in spec.conflicts if not {c.keep, c.drop} <= names]:
        raise _stale(spec, f"a conflict of {stale.keep} and {stale.drop}")
    for wrong in [e for e in spec.record_errors if (e.package, e.version) not in held]:
        raise _stale(spec, f"a wrong RECORD of {wrong.package} {wrong.version}")
    interpreter = [d.artifact.sha256 for d in base.debs if d.name in ("python3.11-minimal", "libpython3.11-minimal")]
    plans = []
    for name, wheels in groups(lock.wheels).items():
        what = f"{name} {wheels[0].version}" if name == wheels[0].name else f"{name}: {len(wheels)} wheels"
        rules = tuple((w.name, said) for w in wheels if (said := spec.rules(w.name)) != Rules())
        inputs = [[w.name, w.artifact.file, w.artifact.sha256] for w in wheels]
        said_of = [[name, *(sorted(paths) for paths in (said.dropped, said.excused, said.left_out))] for name, said in rules]
        plans.append(LayerPlan(what, _key("wheels", interpreter, inputs, said_of), wheels, rules))
    return tuple(plans)


def files_layer(files: Iterable[ImageFile], folders: Iterable[ImageFolder]) -> LayerPlan:
    """The plan of the layer of files from the repository. Where they lie there does not count, only what the image gets."""
    files, folders = sorted(files, key=lambda file: file.path), sorted(folders, key=lambda folder: folder.path)
    contents = [[file.path, file.sha256, file.mode, file.uid] for file in files]
    key = _key("files", contents, [[folder.path, folder.mode, folder.uid] for folder in folders])
    return LayerPlan("files", key, files=tuple(files), folders=tuple(folders))


def inputs_digest(plans: Iterable[LayerPlan], config: object) -> str:
    """A digest over everything an image is made from."""
    return "sha256:" + _key([plan.key for plan in plans], config)


def _stale(spec: ImageSpec, what: str) -> UsageError:
    where = f"images/{spec.role}/image.toml"
    return UsageError(f"{what} is stated, but {spec.set}.lock does not hold that", where=where, fix="look at it anew")


def _bucket(name: str) -> int:
    return hashlib.sha256(name.encode()).digest()[0] % BUCKETS


def _key(*parts: object) -> str:
    body = json.dumps(
        [FORMAT, rootfs.EPOCH, ZSTD_VERSION, ZSTD_LEVEL, _INSTALLER, *parts], sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(body.encode()).hexdigest()
