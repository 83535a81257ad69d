"""Which wheels share a layer.

A big wheel is alone: its bump touches nothing else. Small ones fall into a fixed number of buckets by their name, so that a
package that comes or goes moves no other. A layer's key is the digest of everything its bytes depend on.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable
from dataclasses import dataclass

from common.errors import UsageError
from images.spec import ImageSpec
from images.tarball import ZSTD_LEVEL, ZSTD_VERSION
from lockfiles import rootfs
from lockfiles.model import BaseLock, SetLock, Wheel

# Bumped when the code that writes layers changes their bytes: a change must be meant.
FORMAT = 1
# Its scripts and its form of RECORD are in the layers.
_INSTALLER = importlib.metadata.version("installer")
# Wheels from this size on get a layer of their own. Engines cap an image at 127 layers; ours stay below 100.
BIG = 8_000_000
BUCKETS = 16


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One layer to be.

    Attributes:
        what: for people: the wheel, or which bucket.
        key: digest over all that decides its bytes.
        wheels: sorted by name; none for base and config.
        dropped: (package, path in the image) of files that lose to another package's.
        excused: (package, path in its wheel) of files that RECORD describes wrongly, known and accepted.
    """

    what: str
    key: str
    wheels: tuple[Wheel, ...] = ()
    dropped: frozenset[tuple[str, str]] = frozenset()
    excused: frozenset[tuple[str, str]] = frozenset()

    @property
    def weight(self) -> int:
        """Bytes of its wheels, a measure of the work."""
        return sum(wheel.artifact.size for wheel in self.wheels)


def base_layer(base: BaseLock) -> LayerPlan:
    """The plan of the base layer."""
    return LayerPlan("base", _key("base", rootfs.key(base)))


def wheel_layers(base: BaseLock, lock: SetLock, spec: ImageSpec) -> tuple[LayerPlan, ...]:
    """The plans of all wheel layers, big wheels first, in a fixed order.

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
    big = [wheel for wheel in lock.wheels if wheel.artifact.size >= BIG]
    buckets: dict[int, list[Wheel]] = {}
    for wheel in lock.wheels:
        if wheel.artifact.size < BIG:
            buckets.setdefault(_bucket(wheel.name), []).append(wheel)
    groups = [(f"{w.name} {w.version}", [w]) for w in big]
    groups += [(f"bucket {number:02d}: {len(wheels)} wheels", wheels) for number, wheels in sorted(buckets.items())]
    plans = []
    for what, wheels in groups:
        inside = {wheel.name for wheel in wheels}
        dropped = frozenset((c.drop, c.path) for c in spec.conflicts if c.drop in inside)
        excused = frozenset((e.package, e.path) for e in spec.record_errors if e.package in inside)
        inputs = [[w.name, w.artifact.file, w.artifact.sha256] for w in wheels]
        key = _key("wheels", interpreter, inputs, sorted(dropped), sorted(excused))
        plans.append(LayerPlan(what, key, tuple(wheels), dropped, excused))
    return tuple(plans)


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
