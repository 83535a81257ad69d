"""`invoke build`: locks and specs in, images in one OCI layout and a receipt out.

Everything is fetched and verified first; from then on no network is used. Layers are made by as many processes as there are
cores; their bytes do not depend on how many.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from common import console, git, paths, workers
from common.errors import BuildError, MissingEnvironmentError
from common.files import PART, sha256_file
from images import assembly, bill, budget, certificates, compare, config, files, layer, receipt, spec, thin
from images.inventory import Donor
from images.layer import Layer
from images.plan import LayerPlan
from images.receipt import BuildReceipt, BuiltImage
from images.recipe import Recipe, recipe_of
from images.wheels import collisions
from lockfiles import check, fetching, lockfile
from lockfiles.debian import rootfs
from lockfiles.debian.rootfs import Rootfs
from lockfiles.model import BaseLock
from oci.layout import Layout

# How many times its size what comes compressed unpacks to, roughly.
_UNPACKED = 3
# So many differences between two builds are told.
_SHOWN = 20


def build(roles: Iterable[str], *, twice: bool = False, donor: Donor | None = None, spot_checks: int = 0) -> BuildReceipt:
    """Build images into `dist/` and write the receipt.

    Args:
        roles: short names, in the order of the result.
        twice: build all again from nothing, elsewhere, and compare.
        donor: gives layers that a registry holds; they are not made, and only what the others are made of is fetched.
        spot_checks: so many of the layers that it gives, chosen by chance, are made all the same, and compared.

    Raises:
        UsageError: no such image.
        LockError: a lock is stale, or bytes do not match it.
        BuildError: an image cannot be built, exceeds its budget, or two builds differ; or a layer is not what the donor said.
        RegistryError: of the donor.
        MissingEnvironmentError: network, disk or a tool is missing.
    """
    check.check()
    # What runs now was installed from it.
    toolkit = sha256_file(paths.LOCKFILES / "toolkit.txt")
    specs = [spec.read(role) for role in roles]
    certificates.tell_expired(dict.fromkeys(one for s in specs for one in s.certificates))
    if donor is None:
        fetching.fetch(dict.fromkeys(s.set for s in specs))
    base = lockfile.read_base()
    recipes = [recipe_of(s, base) for s in specs]
    with _alone(paths.dist()), ThreadPoolExecutor(1) as beside:
        layout, before = Layout(receipt.layout()), _before()
        bills = [beside.submit(bill.make, recipe, base, before) for recipe in recipes]
        if donor is None:
            images = _build(layout, recipes, base, rootfs.made(base))
        else:
            with thin.taken(layout, recipes, base, donor, spot_checks) as (root, places):
                images = _build(layout, recipes, base, root, places)
        # Their layers stay, the receipt does not come: once the budget is raised, this build takes a second.
        for recipe, image in zip(recipes, images, strict=True):
            budget.check(image, recipe.spec.budget, before)
        if twice:
            _again(recipes, base, images)
        images = tuple(made.result().written(image) for made, image in zip(bills, images, strict=True))
        finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        result = BuildReceipt(git.revision(), images, finished, toolkit)
        receipt.write(result)
        # After the receipt: until it is replaced, smoke and push go by the one before, and find what it names.
        if freed := layer.sweep(layout):
            console.info(f"removed {console.size(freed)} of layers that no image holds any more")
    _print(result)
    return result


def _before() -> tuple[BuiltImage, ...]:
    """The images of the last build that was good; none where there is no such thing."""
    try:
        return receipt.read().images
    except BuildError:
        return ()


def _build(
    layout: Layout, recipes: list[Recipe], base: BaseLock, root: Rootfs, places: Mapping[str, str] | None = None
) -> tuple[BuiltImage, ...]:
    """Make what is missing; `places`: the repositories that have the blobs which need not be here, by key."""
    layout.create()
    places = places or {}
    wanted = {one.key: one for recipe in recipes for one in recipe.plans}
    done: dict[str, Layer] = {}
    for key, one in wanted.items():
        if (found := layer.noted(layout, one, places)) is not None:
            done[key] = found
    reused = frozenset(done)
    for recipe in recipes:
        # What is listed was looked at before.
        if not all(one.key in done for one in recipe.plans) or not _listed(layout, recipe, done):
            made = [layer.held(layout, done[one.key]) for one in recipe.wheels if one.key in done]
            to_make = [wheel for one in recipe.wheels if one.key not in done for wheel in one.wheels]
            collisions.check(recipe.lock, recipe.spec, made, to_make)
    missing = [one for key, one in wanted.items() if key not in done]
    if missing:
        console.info(f"{len(reused)} layers reused, {len(missing)} to make")
    for recipe in recipes:
        if recipe.config.key not in done:
            accounts = config.accounts(root.tar)
            fill = partial(config.fill, recipe.spec, accounts, base.version("python3.11"), root.tree)
            done[recipe.config.key] = layer.make(layout, recipe.config, fill)
        if recipe.files and recipe.files.key not in done:
            done[recipe.files.key] = layer.make(layout, recipe.files, partial(files.fill, recipe.files))
    done |= _make(layout, [one for one in missing if one.key not in done], root)
    images = []
    for recipe in recipes:
        layers = [done[one.key] for one in recipe.plans]
        if not _listed(layout, recipe, done):
            held = [layer.held(layout, done[one.key]) for one in recipe.wheels]
            layer.check_conflicts(held, recipe.spec.conflicts)
            if recipe.files:
                files.check_places(recipe.files, recipe.spec.files, layer.held(layout, done[recipe.base.key]), held)
        images.append(assembly.assemble(layout, recipe, base, layers, reused, places))
    return tuple(images)


def _listed(layout: Layout, recipe: Recipe, done: Mapping[str, Layer]) -> bool:
    return layout.lists(recipe.spec.name, recipe.version, [done[one.key].digest for one in recipe.plans])


def _make(layout: Layout, missing: list[LayerPlan], root: Rootfs) -> dict[str, Layer]:
    """Make layers in parallel, the heaviest first so that none is left over at the end: of wheels, and the base's."""
    made: dict[str, Layer] = {}
    if not missing:
        return made
    # Bytes of work; the base's debs and tar are about as far apart as wheels are from what they unpack to.
    weights = {one.key: one.weight or root.tar.stat().st_size // _UNPACKED for one in missing}
    text = f"{len(missing)} layers"
    try:
        count = min(len(missing), len(os.sched_getaffinity(0)))
        with console.Bar(text, sum(weights.values())) as bar, workers.pool(count) as pool:
            tasks = {}
            for one in sorted(missing, key=lambda p: (-weights[p.key], p.key)):
                if one.wheels:
                    task = pool.submit(layer.make_wheels, layout.root, one, root.tree)
                else:
                    task = pool.submit(layer.make_from_tar, layout, one, root.tar, root.digest)
                tasks[task] = one.key
            for task in as_completed(tasks):
                made[tasks[task]] = task.result()
                bar.advance(weights[tasks[task]])
    except BrokenProcessPool:
        fix = "free some memory, or stop what else runs"
        raise MissingEnvironmentError("a process that makes layers was killed, likely for want of memory", fix=fix) from None
    finally:
        # The workers end in the middle of what they do when one fails.
        layer.clear(layout)
    console.done(f"{text}, {console.size(sum(one.size for one in made.values()))}")
    return made


def _again(recipes: list[Recipe], base: BaseLock, first: tuple[BuiltImage, ...]) -> None:
    """Build everything once more in an empty folder, base included, and compare.

    Raises:
        BuildError: an image differs; naming the layer, the file and the attribute.
    """
    with tempfile.TemporaryDirectory(dir=paths.dist(), prefix=".again-") as scratch:
        console.info("building again from nothing")
        layout = Layout(Path(scratch) / "oci")
        second = _build(layout, recipes, base, rootfs.made(base, Path(scratch) / "rootfs"))
        for one, other in zip(first, second, strict=True):
            if one.digest == other.digest:
                console.done(f"{one.name}: both builds are {one.digest}")
                continue
            found = list(compare.images(Layout(receipt.layout()), one, layout, other))
            for difference in found[:_SHOWN]:
                console.info(difference)
            if len(found) > _SHOWN:
                console.info(f"and {len(found) - _SHOWN} more differences")
            more = f", and {len(found) - 1} more" if len(found) > 1 else ""
            raise BuildError(
                f"{one.name} differs between two builds: {found[0]}{more}",
                where=f"{one.digest} and {other.digest}",
                fix="this is a bug of Pinwheel, or a layer altered on disk: report it with these lines",
            )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One build at a time in a folder; a second waits. What a killed one left half written is removed first."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.info(f"another build is running in {paths.shown(folder)}; waiting for it")
            fcntl.flock(guard, fcntl.LOCK_EX)
        for killed in folder.glob(".again-*"):
            shutil.rmtree(killed, ignore_errors=True)
        for killed in [*folder.glob(f".{receipt.path().name}.*{PART}"), *(folder / "sbom").glob(f".*{PART}")]:
            killed.unlink(missing_ok=True)
        layer.clear(Layout(receipt.layout()))
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
