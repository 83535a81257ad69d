"""What a build hands to the stages after it: `dist/build.json`.

JSON form: one object with `format` (1) and the fields of `BuildReceipt`, the dataclasses below field by field. Sizes are bytes.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from dataclasses import dataclass
from pathlib import Path

from common import console, paths
from common.errors import BuildError
from common.files import write_whole
from common.reader import record
from oci.reference import check_digest, short

FORMAT = 1


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """One layer of a built image.

    Attributes:
        what: what it holds, for people: `base`, a wheel, a bucket of small wheels, `config`.
        digest: of the compressed blob.
        diff_id: of the uncompressed tar.
        size: compressed.
        unpacked: uncompressed.
        reused: whether this build found it instead of making it.
        source: the repository that has the blob, `host[:port]/path`, where a thin build left it; empty: it is in the layout.
    """

    what: str
    digest: str
    diff_id: str
    size: int
    unpacked: int
    reused: bool
    source: str = ""


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """One image in the layout.

    Attributes:
        name: repository name, `llama-factory-train`.
        role: the short name of the command line, `train`.
        version: version of the software it is about, also its tag.
        digest: of the image manifest; what is pushed, proven and deployed.
        config_digest: of the image configuration.
        size: compressed bytes of all layers.
        unpacked: bytes of all layers' tars.
        inputs: digest over everything the image was made from.
        layers: from the bottom up.
        driver: the oldest branch of NVIDIA's driver that runs it; 0 where it asks for no GPU.
        compute: the compute capabilities it holds code for, `7.5`.
        sbom: digest of its SBOM, the file beside the receipt.
        sbom_serial: the SBOM's serial number.
    """

    name: str
    role: str
    version: str
    digest: str
    config_digest: str
    size: int
    unpacked: int
    inputs: str
    layers: tuple[BuiltLayer, ...]
    driver: int = 0
    compute: tuple[str, ...] = ()
    sbom: str = ""
    sbom_serial: str = ""


@dataclass(frozen=True, slots=True)
class BuildReceipt:
    """All images of one build.

    Attributes:
        source: git revision the build ran from, `-dirty` appended when files differed; `unknown` outside git.
        images: in the order they were asked for.
        finished: when it ended, UTC, RFC 3339; empty in receipts of before that was written.
        toolkit: digest of `lockfiles/toolkit.txt`, whose packages built; empty as above.
    """

    source: str
    images: tuple[BuiltImage, ...]
    finished: str = ""
    toolkit: str = ""

    def outcome(self) -> str:
        """The result in a few words."""
        return "; ".join(f"{image.name} {short(image.digest)}, {console.size(image.size)}" for image in self.images)


def path() -> Path:
    """Where the receipt lies."""
    return paths.dist() / "build.json"


def layout() -> Path:
    """The OCI image layout that holds every built image."""
    return paths.dist() / "oci"


def sbom(image: str) -> Path:
    """Where the SBOM of an image lies, by the image's name."""
    return paths.dist() / "sbom" / f"{image}.cdx.json"


def sbom_1_6(image: str) -> Path:
    """Where the same SBOM lies in CycloneDX 1.6."""
    return paths.dist() / "sbom" / f"{image}.cdx-1.6.json"


def write(receipt: BuildReceipt) -> Path:
    """Write the receipt, whole or not at all."""
    body = {"format": FORMAT, **dataclasses.asdict(receipt)}
    write_whole(path(), json.dumps(body, indent=2, sort_keys=True) + "\n")
    return path()


def read() -> BuildReceipt:
    """The receipt of the last build.

    Raises:
        BuildError: there is none, or it is not one of ours.
    """
    try:
        body = json.loads(path().read_text())
        if body.pop("format") != FORMAT:
            raise ValueError(f"not of format {FORMAT}")
        receipt = record(BuildReceipt, body)
        if receipt.finished and datetime.datetime.fromisoformat(receipt.finished).utcoffset() != datetime.timedelta():
            raise ValueError(f"`finished` is no time in UTC: {receipt.finished!r}")
        if receipt.toolkit:
            check_digest(receipt.toolkit)
        return receipt
    except FileNotFoundError:
        raise BuildError("nothing was built yet", where=paths.shown(path()), fix="run `invoke build` first") from None
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise BuildError(f"not a build receipt: {problem}", where=paths.shown(path()), fix="run `invoke build` again") from None
