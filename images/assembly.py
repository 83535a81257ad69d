"""One image of its layers: configuration, manifest, and what the build receipt says; all of it follows from the recipe."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from common.errors import BuildError
from images import bill, config, layer, spec
from images.layer import Layer
from images.receipt import BuiltImage, BuiltLayer
from images.recipe import Recipe
from lockfiles.model import BaseLock
from oci.layout import Layout


def assemble(
    layout: Layout,
    recipe: Recipe,
    base: BaseLock,
    layers: list[Layer],
    reused: frozenset[str] = frozenset(),
    places: Mapping[str, str] | None = None,
) -> BuiltImage:
    """Write configuration and manifest of an image and of its base, and list both.

    Args:
        layout: where to.
        recipe: of the image.
        base: what it stands on.
        layers: from the bottom up.
        reused: keys of those that were there already.
        places: the repositories that have the blobs that are not in the layout, by key.
    """
    places = places or {}
    gpu = spec.gpu(recipe.spec.role, recipe.lock)
    python = base.version("python3.11")
    base_image = config.base_image(layout, layers[0], python, base.date)
    manifest, described = config.image(
        layout, recipe.spec, layers, base=base_image, version=recipe.version, inputs=recipe.inputs, date=recipe.date
    )
    layout.publish(base_image, config.BASE, python)
    layout.publish(manifest, recipe.spec.name, recipe.version)
    return BuiltImage(
        name=recipe.spec.name,
        role=recipe.spec.role,
        version=recipe.version,
        digest=manifest.digest,
        config_digest=described.digest,
        size=sum(one.size for one in layers),
        unpacked=sum(one.unpacked for one in layers),
        inputs=recipe.inputs,
        layers=tuple(
            BuiltLayer(one.what, one.digest, one.diff_id, one.size, one.unpacked, one.key in reused, places.get(one.key, ""))
            for one in layers
        ),
        driver=gpu.driver if gpu else 0,
        compute=gpu.compute if gpu else (),
    )


def again(recipe: Recipe, base: BaseLock) -> tuple[BuiltImage, bytes]:
    """The image as specs, locks and this machine's own layers give it, and its SBOM; nothing of `dist/` is read.

    Raises:
        BuildError: this machine did not make all of its layers.
    """
    layers = []
    for plan in recipe.plans:
        if (found := layer.made(plan)) is None:
            raise BuildError(
                f"nothing but dist/ says what the layer {plan.what!r} of {recipe.spec.name} holds: it was made elsewhere",
                where=f"images/{recipe.spec.role}",
                fix="run `invoke build` here, which makes it again and gives the same digest",
            )
        layers.append(found)
    with tempfile.TemporaryDirectory(prefix="pinwheel-") as scratch:
        layout = Layout(Path(scratch))
        layout.create()
        image = assemble(layout, recipe, base, layers)
    made = bill.make(recipe, base, ())
    return replace(image, sbom=made.digest, sbom_serial=made.serial), made.data
