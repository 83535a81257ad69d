"""Which wheels share a layer.

A big wheel is alone: its bump touches nothing else. Small ones fall into a fixed number of buckets by their name, so that a
package that comes or goes moves no other. A layer's key is the digest of everything its bytes depend on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from images.spec import Conflict, ImageSpec
from images.tarball import ZSTD_LEVEL, ZSTD_VERSION
from lockfiles import rootfs
from lockfiles.model import BaseLock, SetLock, Wheel

# Bumped when the code that writes layers changes their bytes: a change must be meant.
FORMAT = 1
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
        dropped: paths in the image that these wheels lose to another package.
        excused: (package, path in its wheel) of files that RECORD describes wrongly, known and accepted.
    """

    what: str
    key: str
    wheels: tuple[Wheel, ...] = ()
    dropped: frozenset[str] = frozenset()
    excused: frozenset[tuple[str, str]] = frozenset()

    @property
    def weight(self) -> int:
        """Bytes of its wheels, a measure of the work."""
        return sum(wheel.artifact.size for wheel in self.wheels)


def base_layer(base: BaseLock) -> LayerPlan:
    """The plan of the base layer."""
    return LayerPlan("base", _key("base", rootfs.key(base)))


def wheel_layers(base: BaseLock, lock: SetLock, spec: ImageSpec) -> tuple[LayerPlan, ...]:
    """The plans of all wheel layers, big wheels first, in a fixed order."""
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
        dropped = frozenset(path for wheel in wheels for path in _dropped(wheel, spec.conflicts))
        inputs = [[w.name, w.artifact.file, w.artifact.sha256] for w in wheels]
        # No part of the key: it decides whether the layer is made, not its bytes.
        excused = frozenset(
            (e.package, e.path) for e in spec.record_errors for w in wheels if (w.name, w.version) == (e.package, e.version)
        )
        plans.append(LayerPlan(what, _key("wheels", interpreter, inputs, sorted(dropped)), tuple(wheels), dropped, excused))
    return tuple(plans)


def inputs_digest(plans: Iterable[LayerPlan], config: object) -> str:
    """A digest over everything an image is made from."""
    return "sha256:" + _key([plan.key for plan in plans], config)


def _dropped(wheel: Wheel, conflicts: Iterable[Conflict]) -> list[str]:
    return [c.path for c in conflicts if c.drop == wheel.name]


def _bucket(name: str) -> int:
    return hashlib.sha256(name.encode()).digest()[0] % BUCKETS


def _key(*parts: object) -> str:
    body = json.dumps([FORMAT, rootfs.EPOCH, ZSTD_VERSION, ZSTD_LEVEL, *parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(body.encode()).hexdigest()
