"""`invoke build --plan`: what a build would make, how large it comes out, and what a push would send. Nothing is written.

Sizes of layers that were made are known, others are estimated and carry a `~`. Nobody is asked but the registry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from common import console, host
from common.errors import PinwheelError
from images import budget, receipt, spec
from images.forecast.estimate import Size, size
from images.plan import LayerPlan
from images.recipe import Recipe, recipe_of
from lockfiles import check, images_lock, lockfile
from lockfiles.model import BaseLock
from oci.client.client import Client
from oci.client.patience import ONCE
from oci.client.target import Registry
from oci.layout import Layout
from oci.reference import short

_NAMES = 34


@dataclass(frozen=True, slots=True)
class Content:
    """What a registry holds.

    Attributes:
        source: which one, or where this was learnt instead; for people.
        places: the repositories that hold a layer, by the layer's digest.
    """

    source: str
    places: Mapping[str, frozenset[str]]


def show_plan(roles: Iterable[str], registry: str = "") -> str:
    """Print what a build would make and what a push would send.

    Args:
        roles: short names of images.
        registry: `host[:port][/path]`; empty: the embedded one, and where that does not run, what was pushed last.

    Returns:
        the outcome in a few words.

    Raises:
        UsageError: no such image, or `registry` is no registry.
        LockError: a lock is stale or was edited.
        RegistryError: the registry that was named does not answer.
    """
    check.check()
    base, layout = lockfile.read_base(), Layout(receipt.layout())
    recipes = [recipe_of(spec.read(role), base) for role in roles]
    sizes = {one.key: size(layout, one, base) for recipe in recipes for one in recipe.plans}
    holders = _holders(base)
    content = _content(registry, [recipe.spec.name for recipe in recipes], layout, sizes.values())
    console.info(f"in the registry: as {content.source}")
    sent: dict[str, Size] = {}
    for recipe in recipes:
        sent |= _show(recipe, sizes, holders, content, frozenset(sent))
    new = sum(not one.digest for one in sizes.values())
    return f"{new} of {len(sizes)} layers to make; a push of all would send {_total(sent.values())}"


def _show(
    recipe: Recipe, sizes: Mapping[str, Size], holders: Mapping[str, frozenset[str]], content: Content, before: frozenset[str]
) -> dict[str, Size]:
    """Print one image; returns the layers that a push sends for it, by key.

    Args:
        recipe: of the image.
        sizes: of all layers, by key.
        holders: the roles of the images that hold a layer, by key.
        content: of the registry.
        before: keys of layers that the same push has sent by then.
    """
    image = recipe.spec
    rows, sent = [], {}
    for one in recipe.plans:
        held, others = sizes[one.key], holders.get(one.key, frozenset()) - {image.role}
        places = content.places.get(held.digest, frozenset())
        push = "there" if image.name in places else "mounted" if places or one.key in before else "to send"
        if push == "to send":
            sent[one.key] = held
        state = short(held.digest) if held.digest else "new"
        shared = "all" if others and len(others) == len(spec.roles()) - 1 else ", ".join(sorted(others))
        rows.append((_what(one), held.shown(held.compressed), held.shown(held.unpacked), state, shared, push))
    console.title(f"{image.name}:{recipe.version}")
    console.table(("layer", "MB", "unpacked", "reused", "shared with", "push"), rows, right=(1, 2))
    whole = [sizes[one.key] for one in recipe.plans]
    total = sum(one.compressed for one in whole)
    made = [one for one in whole if one.digest]
    console.info(f"layers   {len(made)} of {len(whole)} reused; to make: {_total(one for one in whole if not one.digest)}")
    console.info(f"size     {'' if len(made) == len(whole) else '~'}{budget.shown(total, image.budget)} of its budget")
    console.info(f"push     {_total(sent.values())}")
    if total > image.budget:
        console.warn(f"{image.name} would exceed its budget: `invoke build` would refuse it (images/{image.role}/image.toml)")
    return sent


def _what(one: LayerPlan) -> str:
    """A layer for people: a bucket by what it holds."""
    if len(one.wheels) < 2:
        return one.what
    names, shown = [wheel.name for wheel in one.wheels], one.what.partition(":")[0] + ":"
    for number, name in enumerate(names):
        if len(f"{shown} {name},") > _NAMES and number:
            return f"{shown} +{len(names) - number}"
        shown += f" {name}" + ("," if number + 1 < len(names) else "")
    return shown


def _total(sizes: Iterable[Size]) -> str:
    held = list(sizes)
    count = sum(one.compressed for one in held)
    return ("" if all(one.digest for one in held) else "~") + console.size(count)


def _holders(base: BaseLock) -> dict[str, frozenset[str]]:
    """The roles of the images that hold each layer, by the layer's key."""
    found: dict[str, frozenset[str]] = {}
    for role in spec.roles():
        try:
            plans = recipe_of(spec.read(role), base).plans
        except PinwheelError:
            # A set that is not locked; if it was asked for, that was said.
            continue
        for one in plans:
            found[one.key] = found.get(one.key, frozenset()) | {role}
    return found


def _content(registry: str, names: Iterable[str], layout: Layout, sizes: Iterable[Size]) -> Content:
    """What the registry holds of the layers that were made."""
    pinned = images_lock.read() if images_lock.path().exists() else ()
    address = registry or host.default_registry()
    if address == host.REGISTRY and not host.registry_answers():
        known: dict[str, frozenset[str]] = {}
        for image in pinned:
            try:
                layers = layout.read(image.digest)["layers"]
            except PinwheelError:
                continue
            for one in layers:
                known[one["digest"]] = known.get(one["digest"], frozenset()) | {image.name}
        where = "images.lock says was pushed" if known else "nobody knows: as if it were empty"
        return Content(f"{where} (no registry answers at {host.REGISTRY})", known)
    target = Registry.parse(address)
    # Where a push looks: it mounts from the other repositories what they hold.
    repositories = list(dict.fromkeys([*names, *(image.name for image in pinned)]))
    made = [one for one in dict.fromkeys(sizes) if one.digest]
    with Client(target, ONCE) as client, ThreadPoolExecutor(ONCE.parallel) as pool:

        def places(one: Size) -> frozenset[str]:
            return frozenset(n for n in repositories if client.exists(target.prefix + n, one.digest, one.compressed))

        found = dict(zip((one.digest for one in made), pool.map(places, made), strict=True))
    return Content(f"{target.host}/{target.prefix}".rstrip("/") + " says now", found)
