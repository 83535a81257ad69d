"""What an image holds, by the SBOM that is attached to its digest and signed: for `invoke audit REF`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from packageurl import PackageURL

from common import console
from common.errors import PolicyError
from common.files import sha256_bytes
from lockfiles import lockfile
from lockfiles.audit import locked, run
from lockfiles.audit.model import Package
from lockfiles.audit.report import Audit
from oci import attachments, statement
from oci.client import access
from oci.client.access import Access
from oci.client.client import Client
from oci.client.target import Registry
from oci.envelope import PublicKey
from oci.reference import ImageRef
from oci.signature import signed_statements
from registry import inspect, signer, trust
from registry.trust import Trust


def audit(references: Sequence[str], key: str = "") -> Audit:
    """Audit images.

    Args:
        references: with their registries, by tag or digest.
        key: the public key's file; empty: that of the checkout's own pair.

    Raises:
        UsageError: a reference or the key makes no sense.
        RegistryError: a registry cannot be read, or has no such image.
        PolicyError: no SBOM is attached to one that the key signed.
        MissingEnvironmentError: there is no advisory data.
    """
    public, found = signer.public_key(key), dict[Package, set[str]]()
    for named in references:
        pinned, held = of_image(inspect.reference(named), public)
        for package in held:
            found.setdefault(package, set()).add(str(pinned))
    return run.judge(", ".join(references), found)


def of_image(ref: ImageRef, key: PublicKey | Trust, reached: Access | None = None) -> tuple[ImageRef, frozenset[Package]]:
    """The reference by digest, and the packages that the image's SBOM names.

    Args:
        ref: with its registry.
        key: whose SBOM counts.
        reached: how the registry is reached; default: as PINWHEEL_REGISTRY says.

    Raises:
        RegistryError: the registry cannot be read, or has no such image.
        PolicyError: no SBOM is attached to it that the key signed.
    """
    with Client(Registry(ref.registry, "", reached or access.of_folder())) as client:
        digest = ref.digest or sha256_bytes(client.manifest(ref.repository, ref.tag or "latest"))
        attached = attachments.read(client, ref.repository, digest)
    found = [parsed.predicate for _, parsed in signed_statements(attached, digest, trust.of(key).signed, statement.SBOM)]
    if not found:
        fix = "name the key of who pushed it (--key), or push it with proof"
        raise PolicyError("no SBOM that this key signed is attached: nobody knows what is in it", where=str(ref), fix=fix)
    return ref.pin(digest), packages(found[-1])


def packages(sbom: dict[str, Any]) -> frozenset[Package]:
    """The packages of an SBOM whose advisories we read, by their purl."""
    # The SBOM names binary packages; their sources are known from those that are locked here.
    sources = {(deb.name, deb.version): package for deb, package in locked.sources(lockfile.read_base().debs).items()}
    found, strange = set(), set()
    for component in sbom.get("components") or ():
        try:
            purl = PackageURL.from_string(str(component.get("purl")))
        except ValueError:
            continue
        # A shim is empty: nothing of the package is in it.
        shim = any(entry.get("name") == "pinwheel:shim" for entry in component.get("properties") or ())
        if purl.type == "pypi" and purl.version and not shim:
            found.add(locked.python(purl.name, purl.version))
        elif (purl.type, purl.namespace) == ("deb", "debian") and purl.version:
            if (known := sources.get((purl.name, purl.version))) is None:
                known = Package("Debian", purl.name, purl.version, purl.name)
                strange.add(known)
            found.add(known)
    if strange:
        console.warn(f"{len(strange)} Debian packages are not those of base.lock, and taken for their own sources")
    return frozenset(found)
