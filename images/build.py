"""`invoke build`: locks and specs in, images in one OCI layout and a receipt out.

Everything is fetched and verified first; from then on no network is used. Layers are made by as many processes as there are
cores; their bytes do not depend on how many.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from common import console, git, paths
from common.errors import BuildError, LockError, MissingEnvironmentError
from common.files import write_whole
from common.refs import short
from images import config, layer, plan, receipt, spec
from images.layer import Layer
from images.layout import Layout
from images.plan import LayerPlan
from images.receipt import BuildReceipt, BuiltImage, BuiltLayer
from images.spec import ImageSpec
from lockfiles import check, fetching, lockfile, rootfs, sbom
from lockfiles.model import BaseLock, SetLock
from lockfiles.rootfs import Rootfs


@dataclass(frozen=True, slots=True)
class _Recipe:
    """One image with all that decides its bytes."""

    spec: ImageSpec
    lock: SetLock
    base: LayerPlan
    wheels: tuple[LayerPlan, ...]
    config: LayerPlan
    inputs: str
    version: str
    date: str

    @property
    def plans(self) -> tuple[LayerPlan, ...]:
        """All layers, from the bottom up."""
        return (self.base, *self.wheels, self.config)


def build(roles: Iterable[str], *, twice: bool = False) -> BuildReceipt:
    """Build images into `dist/` and write the receipt.

    Args:
        roles: short names, in the order of the result.
        twice: build all again from nothing, elsewhere, and compare.

    Raises:
        UsageError: no such image.
        LockError: a lock is stale, or bytes do not match it.
        BuildError: an image cannot be built, or two builds differ.
        MissingEnvironmentError: network, disk or a tool is missing.
    """
    check.check()
    specs = [spec.read(role) for role in roles]
    fetching.fetch(dict.fromkeys(s.set for s in specs))
    base = lockfile.read_base()
    recipes = [_recipe(s, base) for s in specs]
    with _alone(paths.dist()):
        layout = Layout(receipt.layout())
        images = _build(layout, recipes, base, rootfs.made(base))
        if twice:
            _again(recipes, base, images)
        freed = layer.sweep(layout)
        if freed:
            console.info(f"removed {console.size(freed)} of layers that no image holds any more")
        for recipe in recipes:
            bom = sbom.make(name=recipe.spec.name, version=recipe.version, base=base, lock=recipe.lock)
            write_whole(receipt.sbom(recipe.spec.name), bom)
        result = BuildReceipt(git.revision(), images)
        receipt.write(result)
    _print(result)
    return result


def show_plan(roles: Iterable[str]) -> str:
    """Print what a build would make and what it would reuse; asks no network, writes nothing.

    Returns the outcome in a few words.

    Raises:
        UsageError, LockError: as `build`.
    """
    check.check()
    base, layout = lockfile.read_base(), Layout(receipt.layout())
    new = 0
    for role in roles:
        recipe = _recipe(spec.read(role), base)
        console.title(f"{recipe.spec.name}:{recipe.version}")
        rows = []
        for one in recipe.plans:
            found = layer.noted(layout, one)
            new += found is None
            state = f"reused {short(found.digest)}" if found else "new"
            rows.append(
                (one.what, console.size(one.weight) if one.wheels else "", console.size(found.size) if found else "", state)
            )
        console.table(("layer", "wheels", "compressed", "state"), rows, right=(1, 2))
    return f"{new} layers to make"


def _recipe(image: ImageSpec, base: BaseLock) -> _Recipe:
    lock = lockfile.read_set(image.set)
    about = next((wheel.version for wheel in lock.wheels if wheel.name == image.about), None)
    if about is None:
        raise LockError(
            f"{image.about} is not in {image.set}.lock", where=f"images/{image.role}/image.toml", fix="mend `about`"
        )
    base_plan = plan.base_layer(base)
    wheels = plan.wheel_layers(base, lock, image)
    frame = [image.user, image.uid, image.workdir, base.version("python3.11")]
    config_plan = LayerPlan("config", plan.inputs_digest([base_plan], frame).removeprefix("sha256:"))
    date = max(base.date, lock.date)
    inputs = plan.inputs_digest((base_plan, *wheels, config_plan), [date, about, _meaning(image)])
    return _Recipe(image, lock, base_plan, wheels, config_plan, inputs, f"{about}-{short(inputs)}", date)


def _meaning(image: ImageSpec) -> dict[str, object]:
    """What of a spec goes into configuration and manifest; the rest acts through the layers."""
    return {key: value for key, value in asdict(image).items() if key not in ("role", "set", "conflicts", "record_errors")}


def _build(layout: Layout, recipes: list[_Recipe], base: BaseLock, root: Rootfs) -> tuple[BuiltImage, ...]:
    layout.create()
    wanted = {one.key: one for recipe in recipes for one in recipe.plans}
    done: dict[str, Layer] = {}
    for key, one in wanted.items():
        if (found := layer.noted(layout, one)) is not None:
            done[key] = found
    reused = frozenset(done)
    missing = [one for key, one in wanted.items() if key not in done]
    if missing:
        console.info(f"{len(reused)} layers reused, {len(missing)} to make")
    for recipe in recipes:
        if recipe.base in missing and recipe.base.key not in done:
            with console.step("base layer") as notes:
                done[recipe.base.key] = layer.make_from_tar(layout, recipe.base, root.tar, root.digest)
                notes.append(console.size(done[recipe.base.key].size))
        if recipe.config.key not in done:
            accounts = config.accounts(root.tar)
            fill = partial(config.fill, recipe.spec, accounts, base.version("python3.11"))
            done[recipe.config.key] = layer.make(layout, recipe.config, fill)
    done |= _make_wheels(layout, [one for one in missing if one.wheels], root.tree)
    images = []
    for recipe in recipes:
        layers = [done[one.key] for one in recipe.plans]
        gpu = spec.gpu(recipe.spec.role, recipe.lock)
        layer.check_conflicts(layers, recipe.spec.conflicts)
        base_image = config.base_image(layout, layers[0], base.version("python3.11"), base.date)
        manifest, described = config.image(
            layout, recipe.spec, layers, base=base_image, version=recipe.version, inputs=recipe.inputs, date=recipe.date
        )
        layout.publish(base_image, "pinwheel-base", base.version("python3.11"))
        layout.publish(manifest, recipe.spec.name, recipe.version)
        built = tuple(
            BuiltLayer(one.what, one.digest, one.diff_id, one.size, one.unpacked, one.key in reused) for one in layers
        )
        images.append(
            BuiltImage(
                name=recipe.spec.name,
                role=recipe.spec.role,
                version=recipe.version,
                digest=manifest.digest,
                config_digest=described.digest,
                size=sum(one.size for one in layers),
                unpacked=sum(one.unpacked for one in layers),
                inputs=recipe.inputs,
                layers=built,
                driver=gpu.driver if gpu else 0,
                compute=gpu.compute if gpu else (),
            )
        )
    return tuple(images)


def _make_wheels(layout: Layout, missing: list[LayerPlan], tree: Path) -> dict[str, Layer]:
    """Make wheel layers in parallel, the heaviest first so that none is left over at the end."""
    made: dict[str, Layer] = {}
    if not missing:
        return made
    text = f"{len(missing)} wheel layers"
    # A fresh process each, not a fork of this one with its threads; it starts in a third of a second.
    context = multiprocessing.get_context("spawn")
    with (
        console.Bar(text, sum(one.weight for one in missing)) as bar,
        ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool,
    ):
        tasks = {
            pool.submit(layer.make_wheels, layout.root, one, tree): one
            for one in sorted(missing, key=lambda p: (-p.weight, p.key))
        }
        try:
            for task in as_completed(tasks):
                one = tasks[task]
                made[one.key] = task.result()
                bar.advance(one.weight)
        except BrokenProcessPool:
            fix = "free some memory, or stop what else runs"
            raise MissingEnvironmentError(
                "a process that makes layers was killed, likely for want of memory", fix=fix
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    console.done(f"{text}, {console.size(sum(one.size for one in made.values()))}")
    return made


def _again(recipes: list[_Recipe], base: BaseLock, first: tuple[BuiltImage, ...]) -> None:
    """Build everything once more in an empty folder, base included, and compare.

    Raises:
        BuildError: a digest differs; naming the first layer that does.
    """
    with tempfile.TemporaryDirectory(dir=paths.dist(), prefix=".again-") as scratch:
        console.info("building again from nothing")
        layout = Layout(Path(scratch) / "oci")
        second = _build(layout, recipes, base, rootfs.made(base, Path(scratch) / "rootfs"))
    for one, other in zip(first, second, strict=True):
        for left, right in zip(one.layers, other.layers, strict=True):
            if left.digest != right.digest:
                raise BuildError(
                    f"{one.name}: the layer {left.what!r} differs between two builds",
                    where=f"{left.digest} and {right.digest}",
                    fix="this is a bug of Pinwheel: report it with the two digests",
                )
        if one.digest != other.digest:
            raise BuildError(
                f"{one.name} differs between two builds", where=f"{one.digest} and {other.digest}", fix="report it"
            )
        console.done(f"{one.name}: both builds are {one.digest}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One build at a time in a folder; a second waits."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        for killed in folder.glob(".again-*"):
            shutil.rmtree(killed, ignore_errors=True)
        yield


def _print(result: BuildReceipt) -> None:
    for image in result.images:
        new = [one for one in image.layers if not one.reused]
        console.done(f"{image.name}:{image.version}")
        console.info(f"  digest     {image.digest}")
        console.info(f"  size       {console.size(image.size)} compressed, {console.size(image.unpacked)} unpacked")
        reused = len(image.layers) - len(new)
        console.info(f"  layers     {reused} of {len(image.layers)} reused; new: {console.size(sum(one.size for one in new))}")
    console.done(f"receipt: {paths.shown(receipt.path())}")
