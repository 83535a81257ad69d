"""What `dist/` says of a build, computed again before it is signed: whoever can write to `dist/` alone decides none of it.

Image, SBOM and locks follow from specs, locks and the layers that this machine made (`images/assembly.py`); the revision from
git. What is left to belief is when the build ended, and the smoke result, which nothing can compute: docs/proof.md says so.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import git, paths
from common.errors import BuildError
from common.files import sha256_file
from images import assembly, inventory, receipt, spec
from images.receipt import BuildReceipt, BuiltImage
from images.recipe import Recipe, recipe_of
from lockfiles import lockfile
from oci.layout import Layout

_AGAIN = "run `invoke build` again, or check its revision out"
# Clocks differ.
_AHEAD = datetime.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a build was made from, as it was computed.

    Attributes:
        sbom: of the image, as a CycloneDX document.
        locks: digest of each lock, by path.
        inventory: of the image's layers.
    """

    sbom: dict[str, Any]
    locks: dict[str, str]
    inventory: bytes = b""


def inputs(image: BuiltImage, built: BuildReceipt) -> Inputs:
    """Compute an image of the build receipt again, and compare.

    Args:
        image: of the receipt.
        built: the receipt.

    Raises:
        BuildError: something in the receipt, the SBOM or the layout is not what specs, locks, git and this machine's own layers
            give; or this machine did not make the layers.
        MissingEnvironmentError: somebody else could have written the record of the layers.
    """
    image_spec = spec.read(image.role)
    recipe = recipe_of(image_spec, lockfile.read_base())
    if recipe.inputs != image.inputs:
        what = f"{image.name} was not built from the locks, specs and files that are here now"
        raise BuildError(what, where=f"images/{image.role}", fix=_AGAIN)
    true, sbom = assembly.again(recipe, lockfile.read_base())
    _compare(image, true)
    _check_sbom(true, sbom)
    _check_source(built, recipe)
    files = [lockfile.lock_path("base"), lockfile.lock_path(image_spec.set)]
    locks = {paths.shown(file): sha256_file(file) for file in files}
    if built.toolkit:
        locks[paths.shown(_toolkit())] = built.toolkit
    return Inputs(json.loads(sbom), locks, inventory.make(Layout(receipt.layout()), recipe))


def _compare(image: BuiltImage, true: BuiltImage) -> None:
    # Which layers were found made, and where, says something of the build's speed alone.
    layers = tuple(dataclasses.replace(one, reused=False, source="") for one in image.layers)
    said, known = dataclasses.asdict(dataclasses.replace(image, layers=layers)), dataclasses.asdict(true)
    for field in said:
        if said[field] != known[field]:
            what = f"{field} of {image.name} is not what this machine built"
            where = f"{paths.shown(receipt.path())}: {str(said[field])[:100]}, and not {str(known[field])[:100]}"
            raise BuildError(what, where=where, fix="run `invoke build` again")


def _check_sbom(image: BuiltImage, sbom: bytes) -> None:
    file, fix = receipt.sbom(image.name), "run `invoke build` again"
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise BuildError(f"the SBOM of {image.name} is missing", where=paths.shown(file), fix=fix) from None
    if data != sbom:
        raise BuildError(f"the SBOM of {image.name} is not the one that was built", where=paths.shown(file), fix=fix)


def _check_source(built: BuildReceipt, recipe: Recipe) -> None:
    """Refuse a revision that git does not know, or one that is called clean and holds other specs, locks, files or code."""
    where = paths.shown(receipt.path())
    commit, dash, _ = built.source.partition("-dirty")
    if built.finished and datetime.datetime.fromisoformat(built.finished) > datetime.datetime.now(datetime.UTC) + _AHEAD:
        raise BuildError(f"the build is said to have ended in the future: {built.finished}", where=where, fix=_AGAIN)
    if built.toolkit and built.toolkit not in (sha256_file(_toolkit()), git.digest(commit, _toolkit())):
        raise BuildError("the toolkit that built is neither the one here nor the revision's", where=where, fix=_AGAIN)
    if commit == "unknown":
        return
    if not git.knows(commit):
        raise BuildError(f"git knows no commit {commit[:100]!r}", where=where, fix=_AGAIN)
    if dash:
        return
    files = [file.source for file in recipe.files.files] if recipe.files else []
    if changed := git.differing(commit, (*(paths.ROOT / folder for folder in _BUILDERS), *files)):
        what = f"the build is said to be of revision {commit}, which holds another {changed[0]}"
        raise BuildError(what, where=where, fix=_AGAIN)


# What decides an image's bytes beside its own files: specs, locks, and the code that reads them.
_BUILDERS = ("images", "lockfiles", "common", "oci")


def _toolkit() -> Path:
    return paths.LOCKFILES / "toolkit.txt"
