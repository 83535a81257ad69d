"""The smoke result as an in-toto test result (https://in-toto.io/attestation/test-result/v0.1).

Beside that predicate's own fields stands `pinwheel_smoke`, named as SLSA names extensions: where, when and with what it ran.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from common import paths
from smoke.receipt import SmokeReceipt

EXTENSION = "pinwheel_smoke"


def payload_digest(folder: Path | None = None) -> str:
    """What the images were tried with: the digest of the payload programs, by name and content."""
    folder = folder or paths.ROOT / "smoke" / "payload"
    total = hashlib.sha256()
    for file in sorted(one for one in folder.rglob("*") if one.is_file() and "__pycache__" not in one.parts):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"{content}  {file.relative_to(folder).as_posix()}\n".encode())
    return total.hexdigest()


def predicate(run: SmokeReceipt, payload: str) -> dict[str, Any]:
    """What a run says of the images it ran.

    Args:
        run: its receipt, passed or not.
        payload: digest of the payload programs, hex.
    """
    images = [
        {"name": image.name, "digest": {"sha256": image.digest.removeprefix("sha256:")}, "annotations": {"role": image.role}}
        for image in run.images
    ]
    losses = run.training.losses if run.training else ()
    return {
        "result": "PASSED" if run.passed else "FAILED",
        "configuration": [{"name": "smoke/payload", "digest": {"sha256": payload}}, *images],
        "passedTests": [rung.name for rung in run.rungs if rung.outcome == "passed"],
        # What was not run was not passed either.
        "failedTests": [rung.name for rung in run.rungs if rung.outcome != "passed"],
        EXTENSION: {
            "gpu": run.gpu,
            "started": run.started,
            "seconds": run.seconds,
            "source": run.source,
            "engine": run.engine,
            "host": dataclasses.asdict(run.host),
            "loss": {"first": losses[0], "last": losses[-1]} if losses else None,
            "versions": [dataclasses.asdict(one) for one in run.versions],
            "figures": [{"name": one.name, "value": one.value, "unit": one.unit} for one in run.figures],
        },
    }


def proves(run: SmokeReceipt, digest: str) -> bool:
    """Whether a run proved this digest: it passed, and the image itself ran."""
    return run.passed and run.container and any(image.digest == digest for image in run.images)
