"""What a change of the locks means for the images: which layers are new, and what a push will send. Asks no network."""

from __future__ import annotations

from dataclasses import dataclass

from common import console
from common.errors import PinwheelError
from images import plan, receipt, spec
from images.forecast import estimate
from images.plan import LayerPlan
from lockfiles.changes import Locked
from oci.layout import Layout


@dataclass(frozen=True, slots=True)
class Impact:
    """One image, before and after.

    Attributes:
        name: of the image.
        layers: how many it has; those of files and of the configuration are not counted, which no lock changes.
        new: the layers that the old locks do not give, in the order of the image.
        upload: bytes a registry that holds the old image must receive; sizes of layers already built, else estimates.
    """

    name: str
    layers: int
    new: tuple[LayerPlan, ...]
    upload: int


def of(before: Locked, after: Locked) -> tuple[Impact, ...]:
    """The images that the change touches; one whose set is not locked on both sides is left out."""
    layout = Layout(receipt.layout())
    found = []
    for role in spec.roles():
        image = spec.read(role)
        try:
            old, new = (_plans(locked, image) for locked in (before, after))
        except PinwheelError:
            # A stated conflict of a package that went: the build will say so, with what to do.
            continue
        if not old or not new:
            continue
        known = {one.key for one in old}
        fresh = tuple(one for one in new if one.key not in known)
        if fresh:
            upload = sum(estimate.size(layout, one, after.base).compressed for one in fresh)
            found.append(Impact(image.name, len(new), fresh, upload))
    return tuple(found)


def show(before: Locked, after: Locked) -> None:
    """Print it, a line for each image."""
    for one in of(before, after):
        what = ", ".join(layer.what for layer in one.new[:4]) + (", …" if len(one.new) > 4 else "")
        size = console.size(one.upload)
        console.info(f"{one.name}: {len(one.new)} of {one.layers} layers are new, a push sends about {size} ({what})")


def _plans(locked: Locked, image: spec.ImageSpec) -> tuple[LayerPlan, ...]:
    if locked.base is None or image.set not in locked.sets:
        return ()
    return (plan.base_layer(locked.base), *plan.wheel_layers(locked.base, locked.sets[image.set], image))
