"""What `invoke train` leaves: `dist/training-<environment>.json`.

JSON form: one object with `format` (1) and the dataclass below field by field. No time and no host is in it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from common import paths
from common.files import write_whole

FORMAT = 1


@dataclass(frozen=True, slots=True)
class TrainingReceipt:
    """One `invoke train`.

    Attributes:
        environment: its name.
        target: the directory or cluster, for people.
        result: `planned`, `written` (into a directory), `submitted`, `there` (already, or its model is), `succeeded`.
        version: of the run.
        experiment: the file in git.
        source: git revision of the checkout.
        base: the base model's repository and commit; of one that is on no hub, its name and content.
        dataset: by digest.
        images: what the run uses, by digest.
        proof: what was found of each image, in short.
        deploy: whether the model is to be served.
        model: what came out, by digest; empty as long as that is not known.
    """

    environment: str
    target: str
    result: str
    version: str
    experiment: str
    source: str
    base: str
    dataset: str
    images: tuple[str, ...]
    proof: tuple[tuple[str, str], ...]
    deploy: bool
    model: str = ""

    def outcome(self) -> str:
        """The result in a few words."""
        return f"{self.version} {self.result}: {self.model or self.target}"


def path(environment: str) -> Path:
    """Where the receipt of an environment lies."""
    return paths.dist() / f"training-{environment}.json"


def write(receipt: TrainingReceipt) -> Path:
    """Write the receipt, whole or not at all."""
    place = path(receipt.environment)
    write_whole(place, json.dumps({"format": FORMAT, **dataclasses.asdict(receipt)}, indent=2, sort_keys=True) + "\n")
    return place
