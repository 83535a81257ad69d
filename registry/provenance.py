"""Provenance of an image: SLSA v1 (https://slsa.dev/spec/v1.0/provenance), from the build receipt, its SBOM and the locks.

Packages are read from the SBOM. No location stands in it, as none stands in a lock.
"""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path
from typing import Any

from common import paths
from common.errors import UsageError
from common.files import sha256_bytes
from images import receipt
from images.inventory import TYPE
from images.receipt import BuiltImage
from oci.reference import check_digest

_SHARED = "shared.toml"


def project() -> str:
    """The project's URI, which its images name too; it is written only in `images/shared.toml`.

    Raises:
        UsageError: the file does not say it.
    """
    file = paths.IMAGES / _SHARED
    try:
        source = tomllib.loads(file.read_text(encoding="utf-8")).get("source")
    except (OSError, ValueError):
        source = None
    if not isinstance(source, str) or "://" not in source:
        fix = 'write there where your copy of this project lives: source = "https://…"'
        raise UsageError("no `source` that is a URI", where=paths.shown(file), fix=fix)
    return source.rstrip("/")


def build_type() -> str:
    """The kind of build, a URI for readers of a provenance; docs/proof.md explains it."""
    return f"{project()}/build/v1"


def builder() -> str:
    """The builder if no other is named: somebody on their own machine."""
    return f"{project()}/local"


def version() -> str:
    """Pinwheel's own version."""
    return str(tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]["version"])


def predicate(
    image: BuiltImage,
    *,
    source: str,
    locks: dict[str, str],
    sbom: dict[str, Any],
    finished: str,
    builder: str,
    inventory: bytes = b"",
) -> dict[str, Any]:
    """The predicate of an image's provenance.

    Args:
        image: of the build receipt.
        source: its git revision, `-dirty` appended when files differed; `unknown` outside git.
        locks: digest of each lock, by path.
        sbom: the image's, as a CycloneDX document.
        finished: when the build ended, UTC, RFC 3339; empty: unknown, and left out.
        builder: a URI.
        inventory: of the image's layers; empty: none is named.
    """
    role, _, family = image.role.partition("-")
    dependencies = [_source(source), *({"name": path, "digest": _digest(digest)} for path, digest in sorted(locks.items()))]
    dependencies += _packages(sbom)
    return {
        "buildDefinition": {
            "buildType": build_type(),
            "externalParameters": {"image": image.role, "role": role, "family": family},
            "internalParameters": {
                "inputs": image.inputs,
                "version": image.version,
                "config": image.config_digest,
                "layers": [layer.digest for layer in image.layers],
            },
            "resolvedDependencies": dependencies,
        },
        "runDetails": {
            "builder": {"id": builder, "version": {"pinwheel": version()}},
            "metadata": {"invocationId": f"{image.inputs}@{source}", **({"finishedOn": finished} if finished else {})},
            "byproducts": [
                {"name": Path(receipt.sbom(image.name)).name, "digest": _digest(image.sbom)},
                *([_inventory(inventory)] if inventory else []),
            ],
        },
    }


def _inventory(data: bytes) -> dict[str, Any]:
    return {"mediaType": TYPE, "digest": _digest(sha256_bytes(data)), "annotations": {"size": len(data)}}


def inventory(predicate: dict[str, Any]) -> tuple[str, int] | None:
    """Digest and size of the inventory that a provenance names; None where it names none.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: the predicate is not of our form.
    """
    for one in predicate["runDetails"].get("byproducts", []):
        if one.get("mediaType") == TYPE:
            return check_digest(f"sha256:{one['digest']['sha256']}"), int(one["annotations"]["size"])
    return None


def revision(predicate: dict[str, Any]) -> tuple[str, bool]:
    """The source revision that a provenance names, and whether exactly that was built.

    Raises:
        KeyError, TypeError, AttributeError: the predicate is not of our form.
    """
    for dependency in predicate["buildDefinition"]["resolvedDependencies"]:
        if str(dependency.get("uri", "")).startswith("git+"):
            commit = str(dependency.get("digest", {}).get("gitCommit", ""))
            return commit or "unknown", bool(commit) and dependency.get("annotations", {}).get("dirty") is False
    return "unknown", False


def supersedes(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether a provenance takes the place of another one of the same key and digest: that of the build that ended last.

    Two of which one does not say when stand beside each other.
    """
    before, after = _finished(old), _finished(new)
    return before is not None and after is not None and before <= after


def _finished(predicate: dict[str, Any]) -> datetime.datetime | None:
    try:
        at = datetime.datetime.fromisoformat(predicate["runDetails"]["metadata"]["finishedOn"])
    except (KeyError, TypeError, ValueError):
        return None
    return at if at.tzinfo else None


def _source(source: str) -> dict[str, Any]:
    commit, dash, _ = source.partition("-dirty")
    uri = f"git+{project()}"
    if source == "unknown":
        return {"uri": uri, "annotations": {"dirty": True}}
    return {"uri": uri, "digest": {"gitCommit": commit}, "annotations": {"dirty": bool(dash)}}


def _packages(sbom: dict[str, Any]) -> list[dict[str, Any]]:
    """Every deb and wheel, and what a wheel of ours was built from, by purl; our files by path; all with their digest."""
    packages: list[dict[str, Any]] = []
    for component in sbom["components"]:
        for entry in [component, *component.get("pedigree", {}).get("ancestors", [])]:
            digest = next(part["content"] for part in entry["hashes"] if part["alg"] == "SHA-256")
            name = {"uri": entry["purl"]} if "purl" in entry else {"name": entry["name"]}
            told = {part["name"]: part["value"] for part in entry.get("properties", [])}
            # in-toto's names for them (DigestSet).
            git = {"gitCommit": "pinwheel:commit", "gitTree": "pinwheel:tree"}
            commit = {kind: told[name] for kind, name in git.items() if name in told}
            note = entry.get("pedigree", {}).get("notes", "")
            package = {**name, "digest": {"sha256": digest, **commit}, **({"annotations": {"build": note}} if note else {})}
            # One wheel may have built several.
            packages += [package] if package not in packages else []
    return sorted(packages, key=lambda package: str(package.get("uri") or package["name"]))


def _digest(digest: str) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}
