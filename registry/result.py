"""The smoke result as an in-toto test result (https://in-toto.io/attestation/test-result/v0.1).

Beside that predicate's own fields stands `pinwheel_smoke`, named as SLSA names extensions: where, when and with what it ran.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common import paths
from common.errors import SmokeError
from images.receipt import BuiltImage
from smoke import receipt
from smoke.receipt import SmokeReceipt
from smoke.rungs import table

EXTENSION = "pinwheel_smoke"


def payload_digest(folder: Path | None = None) -> str:
    """The digest of the programs that tried the images, over their names and contents."""
    folder = folder or paths.ROOT / "smoke" / "payload"
    total = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"{content}  {file.relative_to(folder).as_posix()}\n".encode())
    return total.hexdigest()


def predicate(run: SmokeReceipt, payload: str) -> dict[str, Any]:
    """The predicate of a smoke run.

    Args:
        run: its receipt, passed or not.
        payload: digest of the payload programs, hex.
    """
    images = [
        {
            "name": image.name,
            "digest": {"sha256": image.digest.removeprefix("sha256:")},
            "annotations": {"role": image.role, **({"config": image.config_digest} if image.config_digest else {})},
        }
        for image in run.images
    ]
    losses = run.training.losses if run.training else ()
    return {
        "result": "PASSED" if run.passed else "FAILED",
        "configuration": [{"name": "smoke/payload", "digest": {"sha256": payload}}, *images],
        "passedTests": [rung.name for rung in run.rungs if rung.outcome == "passed"],
        # A rung that did not run did not pass either.
        "failedTests": [rung.name for rung in run.rungs if rung.outcome != "passed"],
        EXTENSION: {
            "gpu": run.gpu,
            "started": run.started,
            "seconds": run.seconds,
            "source": run.source,
            "engine": run.engine,
            "host": dataclasses.asdict(run.host),
            "loss": {"first": losses[0], "last": losses[-1]} if losses else None,
            "versions": [dataclasses.asdict(version) for version in run.versions],
            "figures": [{"name": figure.name, "value": figure.value, "unit": figure.unit} for figure in run.figures],
        },
    }


def speaks(run: SmokeReceipt, digest: str) -> bool:
    """Whether a run is a result for this digest: the image itself ran, and the run passed, or a rung failed.

    A run that was interrupted before anything failed is no result.
    """
    ended = run.passed or any(rung.outcome == "failed" for rung in run.rungs)
    return ended and run.container and any(image.digest == digest for image in run.images)


def check(run: SmokeReceipt, image: BuiltImage) -> None:
    """Refuse a receipt that no run writes, or that is about another image of the same digest.

    Args:
        run: the receipt of a run of the image.
        image: as it was built.

    Raises:
        SmokeError: its rungs are not those of such a run, its verdict is not theirs, or it ran something else.
    """
    names = [rung.name for rung in run.rungs]
    expected = table.rungs(gpu=run.gpu)
    wrong = ""
    if len(set(names)) != len(names):
        wrong = f"the rung {next(name for name in names if names.count(name) > 1)!r} stands twice"
    elif set(names) != expected:
        wrong = f"its rungs are not those of a run on a {'GPU' if run.gpu else 'CPU'}: {min(set(names) ^ expected)!r}"
    elif run.passed != all(rung.outcome == "passed" for rung in run.rungs):
        wrong = f"it is said to have {'passed' if run.passed else 'failed'}, and its rungs say otherwise"
    for one in run.images:
        said, built = ((it.name, it.role, it.version, it.config_digest) for it in (one, image))
        if one.digest == image.digest and said != built:
            wrong = (
                f"it ran {one.name} ({one.role}, configuration {one.config_digest or 'unknown'}), and {image.name} was built"
            )
    if wrong:
        where = paths.shown(receipt.path())
        raise SmokeError(f"no receipt that a run writes: {wrong}", where=where, fix="run `invoke smoke` again")


def passed(predicate: dict[str, Any]) -> bool:
    """Whether a smoke result is a pass."""
    return predicate.get("result") == "PASSED"


def supersedes(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether a smoke result takes the place of one that is attached, of the same key and digest.

    The last run counts, not the last push. A result from a CPU says nothing about a GPU, so it never replaces one from a GPU. A
    result from a GPU counts for both, and replaces one from a CPU, except a later failure.
    """
    if on_gpu(new) != on_gpu(old):
        if not on_gpu(new):
            return False
        if passed(old):
            return True
    return _started(old) <= _started(new)


def adds(new: dict[str, Any], beside: Iterable[dict[str, Any]]) -> bool:
    """Whether a smoke result is attached beside those that it does not supersede.

    A pass on a CPU adds nothing to a result from a GPU; a failure does: then the image is refused until a later run passes.
    """
    attached = list(beside)
    if any(on_gpu(old) == on_gpu(new) for old in attached):
        return False
    return not (passed(new) and not on_gpu(new) and attached)


def on_gpu(predicate: dict[str, Any]) -> bool:
    """Whether a smoke result is from a GPU."""
    more = predicate.get(EXTENSION)
    return isinstance(more, dict) and more.get("gpu") is True


def _started(predicate: dict[str, Any]) -> datetime.datetime:
    """When its run began; the earliest possible time if it does not say."""
    more = predicate.get(EXTENSION)
    try:
        at = datetime.datetime.fromisoformat(more["started"]) if isinstance(more, dict) else datetime.datetime.min
    except (KeyError, TypeError, ValueError):
        at = datetime.datetime.min
    return at if at.tzinfo else at.replace(tzinfo=datetime.UTC)
