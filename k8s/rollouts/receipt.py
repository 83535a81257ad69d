"""What a deploy leaves: `dist/deploy/<environment>.json`.

JSON form: one object with `format` (1) and the dataclasses below field by field. For a directory no time and no host is in it:
the same deploy writes the same bytes. For a cluster, `release` says what the record there says.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from common import git, paths
from common.files import write_whole
from k8s.envs.environment import Environment
from k8s.objects import findings
from k8s.prepare.rendered import Images, RenderedSet
from k8s.rollouts.release import Release

FORMAT = 1


@dataclass(frozen=True, slots=True, order=True)
class DeployedImage:
    """One image reference of the set.

    Attributes:
        object: the object it stands in, for people.
        path: where in the object.
        reference: what runs, by digest.
        written: what the source manifest says.
        before: the reference that was there before the deploy, empty when there was none.
    """

    object: str
    path: str
    reference: str
    written: str
    before: str


@dataclass(frozen=True, slots=True)
class DeployReceipt:
    """One deploy.

    Attributes:
        environment: its name.
        target: the directory or cluster, for people.
        result: `planned` (a dry run), `rendered` (a directory) or `running` (a cluster, read back).
        source: git revision the manifests come from.
        images: every image reference, sorted.
        objects: every object of the set, in order.
        changed: objects or files that were created, changed or removed, and which of the three.
        release: what the cluster's record says of it; null for directories.
    """

    environment: str
    target: str
    result: str
    source: str
    images: tuple[DeployedImage, ...]
    objects: tuple[str, ...]
    changed: tuple[tuple[str, str], ...]
    release: Release | None = None

    def outcome(self) -> str:
        """The result in a few words."""
        return f"{len(self.objects)} objects, {len(self.images)} images pinned by digest, {self.result}: {self.target}"


def of_set(
    rendered: RenderedSet,
    env: Environment,
    result: str,
    before: Images,
    changed: tuple[tuple[str, str], ...],
    release: Release | None = None,
) -> DeployReceipt:
    """The receipt of a set.

    Args:
        rendered: the set.
        env: where it went.
        result: as in the receipt.
        before: the images that were there.
        changed: as in the receipt.
        release: what the cluster's record says of it; None for a directory and for a dry run.
    """
    deployed = sorted(
        DeployedImage(
            pin.title, findings.shown(pin.path), str(pin.pinned), pin.written, before.get((pin.identity, pin.path), "")
        )
        for pin in rendered.pins
    )
    source = release.source if release else git.revision()
    titles = tuple(manifest.title for manifest in rendered.objects)
    return DeployReceipt(env.name, env.where, result, source, tuple(deployed), titles, changed, release)


def path(environment: str) -> Path:
    """Where the receipt of an environment lies."""
    return paths.dist() / "deploy" / f"{environment}.json"


def write(receipt: DeployReceipt) -> Path:
    """Write the receipt, whole or not at all."""
    body = {"format": FORMAT, **dataclasses.asdict(receipt)}
    place = path(receipt.environment)
    write_whole(place, json.dumps(body, indent=2, sort_keys=True) + "\n")
    return place
