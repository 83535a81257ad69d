"""The bill of materials of an image: CycloneDX 1.7 (ECMA-424) as JSON, from the locks and the files of the repository.

The same locks and files give the same bytes: the serial number is a UUID of the content (RFC 9562, version 5), the time the
locks' own. No location stands in it, as none stands in the locks: a package is named by its purl (ECMA-427) and its sha256, a
file by its path in the image and its sha256.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType, Pedigree
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.license import LicenseAcknowledgement, LicenseExpression
from cyclonedx.output.json import JsonV1Dot7
from packageurl import PackageURL
from packaging.utils import canonicalize_name, parse_wheel_filename

from lockfiles import serial
from lockfiles.licences import spdx
from lockfiles.model import Artifact, BaseLock, Deb, SetLock, Wheel

DISTRO = "debian-12"
_PREFIX = "pinwheel:"


def make(*, name: str, version: str, base: BaseLock, lock: SetLock, files: Mapping[str, str]) -> bytes:
    """The SBOM of the image that holds this base, this set and these files.

    Args:
        name: the image's.
        version: the image's. Not its digest: the SBOM may be attached to that.
        base: every deb becomes a component.
        lock: every wheel becomes a component.
        files: those of the repository, each a component: sha256 by absolute path in the image.
    """
    debs = {deb.name: _deb(deb) for deb in base.debs}
    wheels = {wheel.name: _wheel(wheel) for wheel in lock.wheels}
    image = Component(
        name=name,
        version=version,
        type=ComponentType.CONTAINER,
        bom_ref=f"image:{name}",
        properties=[_property("python", lock.python), _property("glibc", lock.glibc), _property("set", lock.name)],
    )
    number = serial.number(name=name, version=version, base=base, lock=lock, files=files)
    brought = [_repository_file(path, sha256) for path, sha256 in files.items()]
    bom = Bom(components=[*debs.values(), *wheels.values(), *brought], serial_number=number)
    bom.metadata.component = image
    bom.metadata.timestamp = datetime.datetime.fromisoformat(max(base.date, lock.date)).replace(tzinfo=datetime.UTC)
    needs = {deb.name: deb.needs for deb in base.debs}
    roots = [debs[name] for name in _tops(needs, [deb.name for deb in base.debs if deb.essential])]
    bom.dependencies.update(_edges(debs, needs))
    asked = {wheel.name: tuple(_name(need) for need in wheel.needs) for wheel in lock.wheels}
    roots += [wheels[name] for name in _tops(asked, [])] + brought
    bom.dependencies.update(_edges(wheels, asked))
    bom.dependencies.add(Dependency(image.bom_ref, [Dependency(root.bom_ref) for root in roots]))
    return JsonV1Dot7(bom).output_as_string(indent=2).encode() + b"\n"


def _deb(deb: Deb) -> Component:
    purl = PackageURL("deb", "debian", deb.name, deb.version, {"arch": deb.arch, "distro": DISTRO})
    properties = [_property("essential", "true")] if deb.essential else []
    return _component(deb.name, deb.version, deb.licence, deb.artifact, purl, properties, None)


def _wheel(wheel: Wheel) -> Component:
    purl = PackageURL("pypi", None, wheel.name, wheel.version)
    properties = [_property("shim", "true")] if wheel.shim else []
    pedigree = None
    if wheel.sdist:
        source = PackageURL("pypi", None, wheel.name, wheel.version, {"file_name": wheel.sdist.file})
        # What the wheel was built from: an ancestor, and not an external reference, which would need a location.
        ancestor = Component(
            name=wheel.name,
            version=wheel.version,
            type=ComponentType.LIBRARY,
            bom_ref=str(source),
            purl=source,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=wheel.sdist.sha256)],
            properties=[*_file(wheel.sdist), *_commit(wheel)],
        )
        pedigree = Pedigree(ancestors=[ancestor, *(_builder(wheel, need) for need in wheel.build or ())], notes=_built(wheel))
    return _component(wheel.name, wheel.version, wheel.licence, wheel.artifact, purl, properties, pedigree)


def _built(wheel: Wheel) -> str:
    """How a wheel of ours was made; the provenance of an image repeats it."""
    note = "built by Pinwheel from this sdist, without network, in the base image"
    return note if wheel.reproducible else f"{note}; not reproducible, as its input states: another build gives other bytes"


def _builder(wheel: Wheel, artifact: Artifact) -> Component:
    """A wheel that built another one; it is not in the image on that account."""
    name, version, *_ = parse_wheel_filename(artifact.file)
    purl = PackageURL("pypi", None, str(name), str(version), {"file_name": artifact.file})
    return Component(
        name=str(name),
        version=str(version),
        type=ComponentType.LIBRARY,
        bom_ref=f"build:{wheel.name}:{purl}",
        purl=purl,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=artifact.sha256)],
        properties=_file(artifact),
    )


def _repository_file(path: str, sha256: str) -> Component:
    return Component(
        name=path,
        type=ComponentType.FILE,
        bom_ref=f"file:{path}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
    )


def _component(
    name: str,
    version: str,
    licence: str,
    artifact: Artifact,
    purl: PackageURL,
    properties: list[Property],
    pedigree: Pedigree | None,
) -> Component:
    known = licence or spdx.UNKNOWN
    if spdx.non_free(known):
        properties = [*properties, _property("non-free", "true")]
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=str(purl),
        purl=purl,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=artifact.sha256)],
        licenses=[LicenseExpression(known, acknowledgement=LicenseAcknowledgement.DECLARED)],
        properties=[*properties, *_file(artifact)],
        pedigree=pedigree,
    )


def _file(artifact: Artifact) -> list[Property]:
    return [_property("file", artifact.file), _property("size", str(artifact.size))]


def _commit(wheel: Wheel) -> list[Property]:
    return [_property("commit", wheel.commit), _property("tree", wheel.tree)] if wheel.commit else []


def _property(name: str, value: str) -> Property:
    return Property(name=_PREFIX + name, value=value)


def _edges(components: Mapping[str, Component], needs: Mapping[str, Iterable[str]]) -> list[Dependency]:
    # What a deb needs and the lock does not hold, another one provides; an extra may bring the package itself.
    return [
        Dependency(
            component.bom_ref,
            [Dependency(components[need].bom_ref) for need in sorted(set(needs[name]) & set(components) - {name})],
        )
        for name, component in components.items()
    ]


def _tops(needs: Mapping[str, Iterable[str]], wanted: Iterable[str]) -> list[str]:
    """What the image itself asks for: `wanted`, what nobody needs, and one of each ring that nobody else reaches."""
    needed = {need for name, asked in needs.items() for need in asked if need != name}
    tops = sorted({*wanted, *(set(needs) - needed)})
    reached: set[str] = set()
    for candidate in [*tops, *sorted(needs)]:
        if candidate in reached:
            continue
        if candidate not in tops:
            tops.append(candidate)
        pending = [candidate]
        while pending:
            name = pending.pop()
            if name in needs and name not in reached:
                reached.add(name)
                pending += needs[name]
    return tops


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    return canonicalize_name(match[0]) if match else ""
