"""A thin build: layers that a registry holds and a signed inventory names are not made; only what the others need is fetched.

`dist/oci` is then a layout with holes: the receipt says which repository has each missing blob; `invoke push` fills them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from common import console
from common.errors import BuildError, UsageError
from images import layer
from images.inventory import Donor, Offer
from images.plan import LayerPlan
from images.recipe import Recipe
from lockfiles import fetching, store
from lockfiles.debian import rootfs
from lockfiles.debian.rootfs import Rootfs
from lockfiles.model import BaseLock, Wheel
from oci.layout import Layout


def number(text: str) -> int:
    """How many spot checks are asked for.

    Raises:
        UsageError: it is no number.
    """
    if not re.fullmatch(r"[0-9]{0,4}", text):
        raise UsageError(f"--spot-check: not a number of layers: {text[:40]!r}", fix="write --spot-check 3")
    return int(text or "0")


@contextmanager
def taken(
    layout: Layout, recipes: Sequence[Recipe], base: BaseLock, donor: Donor, spot_checks: int
) -> Iterator[tuple[Rootfs, Mapping[str, str]]]:
    """Take what need not be made, and fetch what the rest is made of; the build goes on in the block.

    Yields what the rest is made with, and the repositories that have the blobs which were left there, by key. At the end of the
    block those that were made all the same are compared.

    Args:
        layout: of the build.
        recipes: of the images.
        base: what they stand on.
        donor: gives the layers.
        spot_checks: how many of them are made all the same; chosen by chance.

    Raises:
        BuildError: one of those came out otherwise; nothing that was taken is kept.
        LockError, MissingEnvironmentError: as `fetching.bring`.
        RegistryError: of the donor.
    """
    plans = {plan.key: plan for recipe in recipes for plan in recipe.plans}
    wanted = frozenset(key for key, plan in plans.items() if layer.noted(layout, plan) is None)
    offers = donor(wanted) if wanted else {}
    checked = random.SystemRandom().sample(sorted(offers), min(spot_checks, len(offers)))
    places = {key: offer.place for key, offer in offers.items() if key not in checked}
    console.info(
        f"{len(places)} of {len(plans)} layers are taken from the registry, {len(plans) - len(wanted)} are here already,"
        f" {len(wanted) - len(places)} to make" + (f", {len(checked)} of them to compare" if spot_checks else "")
    )
    for key in places:
        if (known := layer.made(plans[key])) and (known.digest, known.diff_id) != (
            offers[key].layer.digest,
            offers[key].layer.diff_id,
        ):
            raise _lie(plans[key], known.digest, offers[key])
    for key in places:
        layer.keep(layout, replace(offers[key].layer, what=plans[key].what), offers[key].listing)
    try:
        with ExitStack() as held:
            missing = [plans[key] for key in wanted if key not in places]
            yield _ground(held, recipes, base, missing), places
        for key in checked:
            _compare(plans[key], offers[key])
    except BaseException:
        # What a build did not end with was not looked at whole.
        layer.forget(layout, places)
        raise


def _ground(held: ExitStack, recipes: Sequence[Recipe], base: BaseLock, missing: Sequence[LayerPlan]) -> Rootfs:
    """Fetch what these layers are made of; returns the base, or as much of it as they need."""
    wheels = {wheel for plan in missing for wheel in plan.wheels}
    # A layer of neither wheels nor files is the base's own, or adds to files of the base; a sdist is built in the base.
    whole = any(not (plan.wheels or plan.files) for plan in missing) or any(map(_is_to_build, wheels))
    debs = base.debs if whole else rootfs.interpreter(base) if wheels else ()
    locks = {recipe.lock.name: recipe.lock for recipe in recipes}
    parts = [replace(lock, wheels=tuple(wheel for wheel in lock.wheels if wheel in wheels)) for lock in locks.values()]
    fetching.bring(base, debs, [part for part in parts if part.wheels])
    if whole:
        return rootfs.made(base)
    return held.enter_context(rootfs.compiling(debs))


def _is_to_build(wheel: Wheel) -> bool:
    return wheel.sdist is not None and not store.has(wheel.artifact)


def _compare(plan: LayerPlan, offer: Offer) -> None:
    """Refuse a layer that came out otherwise than a signed inventory says."""
    made = layer.made(plan)
    if made != replace(offer.layer, what=plan.what):
        raise _lie(plan, made.digest if made else "missing", offer)
    console.done(f"{plan.what}: made again, as the inventory says")


def _lie(plan: LayerPlan, made: str, offer: Offer) -> BuildError:
    other = offer.layer.digest
    said = other if other != made else f"the same, but with other files, sizes or diff_id ({offer.layer.diff_id})"
    return BuildError(
        f"the layer {plan.what!r} was made on this machine as {made}, and a signed inventory says {said}",
        where=offer.place,
        fix="build without --from, and ask who signed that image",
    )
