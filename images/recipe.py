"""One image with all that decides its bytes, read from specs and locks; nothing is built yet."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from common.errors import LockError
from images import files, plan
from images.plan import LayerPlan
from images.spec import ImageSpec
from lockfiles import lockfile
from lockfiles.model import BaseLock, SetLock
from oci.reference import short


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image to be.

    Attributes:
        spec: of the image.
        lock: of its set.
        base, wheels, files, config: its layers; there is none of files where the spec names none.
        inputs: digest over everything the image is made from.
        version: of the software it is about, and a part of `inputs`; its tag.
        date: UTC day of the younger of its locks.
    """

    spec: ImageSpec
    lock: SetLock
    base: LayerPlan
    wheels: tuple[LayerPlan, ...]
    files: LayerPlan | None
    config: LayerPlan
    inputs: str
    version: str
    date: str

    @property
    def plans(self) -> tuple[LayerPlan, ...]:
        """All layers, from the bottom up."""
        return (self.base, *self.wheels, *((self.files,) if self.files else ()), self.config)


def recipe_of(image: ImageSpec, base: BaseLock) -> Recipe:
    """The recipe of an image.

    Raises:
        UsageError: the spec speaks of packages that the set does not hold, or of files that cannot or may not be in an image.
        LockError: the set is not locked, or does not hold what the image is about.
    """
    lock = lockfile.read_set(image.set)
    about = next((wheel.version for wheel in lock.wheels if wheel.name == image.about), None)
    if about is None:
        raise LockError(
            f"{image.about} is not in {image.set}.lock", where=f"images/{image.role}/image.toml", fix="mend `about`"
        )
    base_plan = plan.base_layer(base)
    wheels = plan.wheel_layers(base, lock, image)
    files_plan = files.layer_plan(image)
    frame: list[object] = [image.user, image.uid, image.workdir, base.version("python3.11")]
    frame += [[one.name, one.sha256] for one in image.certificates]
    config_plan = LayerPlan("config", plan.inputs_digest([base_plan], frame).removeprefix("sha256:"))
    date = max(base.date, lock.date)
    settled = sorted((c.path, c.keep, c.drop) for c in image.conflicts)
    inputs = plan.inputs_digest(
        (base_plan, *wheels, *((files_plan,) if files_plan else ()), config_plan), [date, about, _meaning(image), settled]
    )
    return Recipe(image, lock, base_plan, wheels, files_plan, config_plan, inputs, f"{about}-{short(inputs)}", date)


def _meaning(image: ImageSpec) -> dict[str, object]:
    """What of a spec goes into configuration and manifest; the rest acts through the layers, or not on the image at all."""
    elsewhere = {"role", "set", "conflicts", "record_errors", "left_out", "files", "certificates", "budget"}
    # What came later and is not used, stands in no digest: it would renew images in which nothing changed.
    later = {"entrypoint", "labels"}
    return {key: value for key, value in asdict(image).items() if key not in elsewhere and (value or key not in later)}
