"""What is really inside a built image, as dpkg and importlib.metadata see it, and what an SBOM says of it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

import zstandard
from packageurl import PackageURL
from packaging.utils import canonicalize_name
from packaging.version import Version

from common.errors import BuildError
from common.run import run
from images.wheels.install import PREFIX, SITE
from oci.layout import Layout

# Every folder that some interpreter of the image would import from.
_IMPORTED = (SITE, "usr/lib/python3/dist-packages", "usr/local/lib/python3.11/dist-packages")
_METADATA = re.compile(rf"(?:{'|'.join(_IMPORTED)})/[^/]+\.(?:dist-info/METADATA|egg-info(?:/PKG-INFO)?)")
_STATUS = re.compile(r"var/lib/dpkg/status(?:\.d/.+)?")
# Above the base, what is no wheel's and not the configuration layer's came from the repository.
_NO_FILE = re.compile(rf"{PREFIX}/.*|etc/passwd|etc/group")


@dataclass(frozen=True)
class Packages:
    """Debs as (name, version, architecture), wheels as (name, version), files of the repository as (path, sha256)."""

    debs: frozenset[tuple[str, str, str]]
    wheels: frozenset[tuple[str, str]]
    files: frozenset[tuple[str, str]]


def of_image(layout: Layout, digest: str, scratch: Path) -> Packages:
    """The packages of the image whose manifest has this digest; what they are read from is unpacked into `scratch`."""
    (scratch / "dpkg").mkdir(parents=True)
    (scratch / "dpkg" / "status").touch()
    files = set()
    for number, described in enumerate(layout.read(digest)["layers"]):
        with (
            layout.blob(described["digest"]).open("rb") as blob,
            zstandard.ZstdDecompressor().stream_reader(blob) as stream,
            tarfile.open(fileobj=stream, mode="r|") as tar,
        ):
            for member in tar:
                name = member.name.removeprefix("./")
                assert not name.rpartition("/")[2].startswith(".wh."), f"{name} takes a file away; this reader does not"
                if number and member.isreg() and not _NO_FILE.fullmatch(name):
                    content = tar.extractfile(member)
                    assert content is not None
                    files.add((f"/{name}", hashlib.sha256(content.read()).hexdigest()))
                    continue
                if not (_STATUS.fullmatch(name) or _METADATA.fullmatch(name)):
                    continue
                file = tar.extractfile(member)
                assert file is not None
                if _STATUS.fullmatch(name):
                    assert number == 0, f"{name} stands above the base"
                    target = scratch / "dpkg" / "status"
                else:
                    target = (
                        scratch / "site" / str(number) / name.rpartition("/")[0].rpartition("/")[2] / name.rpartition("/")[2]
                    )
                    target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("ab") as out:
                    out.write(file.read())
    return Packages(_debs(scratch / "dpkg"), _wheels(scratch / "site"), frozenset(files))


def _debs(admin: Path) -> frozenset[tuple[str, str, str]]:
    form = "${Package}\t${Version}\t${Architecture}\t${db:Status-Status}\n"
    listed = run(["dpkg-query", f"--admindir={admin}", "--show", f"--showformat={form}"], error=BuildError).stdout
    rows = [tuple(line.split("\t")) for line in listed.splitlines()]
    assert {row[3] for row in rows} <= {"installed"}
    return frozenset((name, version, arch) for name, version, arch, _ in rows)


def _wheels(site: Path) -> frozenset[tuple[str, str]]:
    folders = sorted(map(str, site.iterdir())) if site.is_dir() else []
    found = [(canonicalize_name(d.name), str(Version(d.version))) for d in importlib.metadata.distributions(path=folders)]
    assert len(found) == len(set(found)), "a distribution stands in two layers"
    return frozenset(found)


def of_sbom(sbom: bytes) -> Packages:
    """What an SBOM names: packages by their purls, files by their paths."""
    components = json.loads(sbom)["components"]
    files = [component for component in components if component["type"] == "file"]
    purls = [PackageURL.from_string(component["purl"]) for component in components if component["type"] != "file"]
    debs = [p for p in purls if p.type == "deb"]
    wheels = [p for p in purls if p.type == "pypi"]
    assert len(debs) + len(wheels) == len(purls)
    return Packages(
        frozenset((p.name, p.version or "", p.qualifiers["arch"]) for p in debs),
        frozenset((canonicalize_name(p.name), str(Version(p.version or ""))) for p in wheels),
        frozenset((component["name"], component["hashes"][0]["content"]) for component in files),
    )


def check_complete(sbom: bytes, layout: Layout, digest: str, scratch: Path) -> Packages:
    """Compare an SBOM with the image, both ways; returns what both name."""
    said, real = of_sbom(sbom), of_image(layout, digest, scratch)
    pairs: list[tuple[frozenset[tuple[str, ...]], frozenset[tuple[str, ...]]]]
    pairs = [(said.debs, real.debs), (said.wheels, real.wheels), (said.files, real.files)]
    for told, found in pairs:
        if told - found:
            raise AssertionError(f"in the SBOM, not in the image: {sorted(told - found)}")
        if found - told:
            raise AssertionError(f"in the image, not in the SBOM: {sorted(found - told)}")
    if not (real.debs and real.wheels):
        raise AssertionError("nothing was found in the image")
    return real
