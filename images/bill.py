"""The SBOM of an image to be: made while its layers are, and only when the last build's would say something else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from common.files import sha256_bytes, sha256_file, write_whole
from images import receipt
from images.receipt import BuiltImage
from images.recipe import Recipe
from lockfiles import serial
from lockfiles.model import BaseLock


@dataclass(frozen=True, slots=True)
class Bill:
    """An SBOM.

    Attributes:
        digest: of its bytes.
        serial: its serial number.
        data: its bytes; none when the file is there already.
    """

    digest: str
    serial: str
    data: bytes = b""

    def written(self, image: BuiltImage) -> BuiltImage:
        """Write it beside the receipt; returns the image with what names it."""
        if self.data:
            write_whole(receipt.sbom_1_6(image.name), as_1_6(self.data))
            write_whole(receipt.sbom(image.name), self.data)
        return replace(image, sbom=self.digest, sbom_serial=self.serial)


def as_1_6(data: bytes) -> bytes:
    """An SBOM of ours in CycloneDX 1.6, for readers that do not know 1.7 yet: it uses nothing that is new in that."""
    schema = {"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "specVersion": "1.6"}
    return json.dumps({**json.loads(data), **schema}, indent=2).encode() + b"\n"


def make(recipe: Recipe, base: BaseLock, before: Iterable[BuiltImage]) -> Bill:
    """The SBOM of one image.

    Args:
        recipe: of the image.
        base: what it stands on.
        before: the images of the last build.
    """
    name, version = recipe.spec.name, recipe.version
    files = {f"/{file.path}": file.sha256 for file in recipe.files.files} if recipe.files else {}
    number = str(serial.number(name=name, version=version, base=base, lock=recipe.lock, files=files))
    file, older = receipt.sbom(name), receipt.sbom_1_6(name)
    for last in before:
        if (
            last.name == name
            and last.sbom_serial == number
            and file.is_file()
            and older.is_file()
            and sha256_file(file) == last.sbom
        ):
            return Bill(last.sbom, number)
    from lockfiles import sbom  # slow to load, and mostly not needed

    data = sbom.make(name=name, version=version, base=base, lock=recipe.lock, files=files)
    return Bill(sha256_bytes(data), number, data)
