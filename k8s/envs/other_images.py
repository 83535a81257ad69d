"""Other people's images that an environment allows, one by one: `other-images` in its file.

Nothing of ours proves them, so each is named by digest, with a reason and a last day. Keys of an entry:
    reference: host/path@sha256:…; a tag before the digest is for people.
    reason: what it is for, in a few words.
    until: the last day on which it may be deployed, 2027-06-30.
    signer: optional; the public key's file (below the repository unless absolute) with which its signature, as cosign makes it,
        is verified at each deploy.
    injected: optional; `true` for an image that no manifest names: a controller puts it into pods, as Argo its executor.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass

from common import paths
from common.reader import Keys
from k8s.objects.findings import Path
from oci.reference import ImageRef

KEY = "other-images"
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_PORT = re.compile(r"(?P<host>.+):0*(?:443|80)")
# The names that the one registry goes by which a reference without a host means.
HUB, _HUB_NAMES = "docker.io", {"", "docker.io", "index.docker.io", "registry-1.docker.io"}


@dataclass(frozen=True, slots=True)
class OtherImage:
    """An image that is allowed without proof of ours.

    Attributes:
        reference: by digest, without a tag, as `canonical` writes it.
        reason: what it is for.
        until: the last day on which it may be deployed.
        signer: the public key's file; empty: nobody's signature is asked for.
        injected: whether it stands in no manifest, because a controller puts it into pods.
        where: file and line of the entry.
    """

    reference: ImageRef
    reason: str
    until: datetime.date
    signer: str = ""
    injected: bool = False
    where: str = ""

    def expired(self, today: datetime.date | None = None) -> bool:
        """Whether its last day is over; by default as of today, UTC."""
        return (today or datetime.datetime.now(datetime.UTC).date()) > self.until

    def text(self) -> str:
        """The entry for people."""
        return f"allowed until {self.until}: {self.reason}"


def canonical(ref: ImageRef) -> ImageRef:
    """A reference as it is compared: one spelling for all that mean the same place, and no tag beside a digest.

    Host names in lower case and without a default port; Docker Hub, which many names mean, as docker.io with `library/`.
    """
    host = ref.registry.lower()
    if match := _PORT.fullmatch(host):
        host = match["host"]
    repository = ref.repository
    if host in _HUB_NAMES:
        host = HUB
        repository = repository if "/" in repository else f"library/{repository}"
    return dataclasses.replace(ref, registry=host, repository=repository, tag="" if ref.digest else ref.tag)


def under(ref: ImageRef, registry: str) -> str:
    """The rest of a reference's repository below a registry's address; empty where it is not below it.

    Args:
        ref: of an image.
        registry: host[:port] and optional path.
    """
    base, found = canonical(ImageRef.parse(f"{registry}/x")), canonical(ref)
    folder = base.repository.removesuffix("x")
    if base.registry == HUB:
        folder = folder.removeprefix("library/")
    below = base.registry == found.registry and found.repository.startswith(folder)
    return found.repository.removeprefix(folder) if below else ""


def parse(top: Keys, lines: Mapping[Path, int], registry: str) -> tuple[OtherImage, ...]:
    """Take the list out of an environment's file.

    Args:
        top: the file.
        lines: of its places.
        registry: of the environment; what lies directly below it is ours, and is proven.

    Raises:
        UsageError: an entry holds something else than it may, or stands twice.
    """
    found: list[OtherImage] = []
    for number, keys in enumerate(top.each(KEY)):
        written, reason, day = keys.text("reference"), keys.text("reason"), keys.text("until")
        signer = keys.text("signer") if "signer" in keys else ""
        injected = keys.flag("injected", default=False)
        keys.end()
        try:
            reference = ImageRef.parse(written)
        except ValueError:
            raise keys.refused("reference", f"{written!r} is no reference") from None
        if not reference.registry or not reference.pinned:
            raise keys.refused("reference", f"{written} is not by digest: write host/path@sha256:…")
        if (rest := under(reference, registry)) and "/" not in rest:
            what = (
                f"{written} is an image of ours, which is proven, not allowed: others' copies lie in a folder of the registry"
            )
            raise keys.refused("reference", what)
        try:
            until = datetime.date.fromisoformat(day if _DAY.fullmatch(day) else "")
        except ValueError:
            raise keys.refused("until", f"expected a day such as 2027-06-30, got {day!r}") from None
        entry = OtherImage(
            reference=canonical(reference),
            reason=" ".join(reason.split()),
            until=until,
            signer=str(paths.ROOT / signer) if signer else "",
            injected=injected,
            where=f"{top.file}:{lines.get((KEY, number), 1)}",
        )
        if any(other.reference == entry.reference for other in found):
            raise keys.refused("reference", f"{written} stands twice")
        found.append(entry)
    return tuple(found)
