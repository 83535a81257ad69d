"""Bring the model of this pod onto its volume: the init container of inference.

    python -m pinwheel_pipeline.fetch [--config /app/config/inference.yaml] [--models /models] [--key /trust/model.pub]

MODEL is the model's reference by digest (the pod's annotation `pinwheel.io/model`). It is pulled with the login that
`$DOCKER_CONFIG/config.json` holds, if any. Its cosign signature has to hold by the public key; where there is no key, nothing
is taken, unless MODEL_TRUST is `none`. The files lie in `<models>/current` as soon as all of them are there and right, and
`<models>/inference.yaml` is the configuration with `model_name_or_path` and `template` of this model. A model that is whole
already, after a restart of the pod's containers, is not asked for again.

Exit codes: 2 settings, 10 this machine, 11 bytes, 14 the registry, 15 the model is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from . import artifact, signature, transfer, wire
from .artifact import Artifact
from .registry import Reference, Repository
from .transfer import Wanted
from .wire import POLICY, USAGE, RefusedError


def main(argv: list[str]) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="fetch")
    parser.add_argument("--config", type=Path, default=Path("/app/config/inference.yaml"))
    parser.add_argument("--models", type=Path, default=Path("/models"))
    parser.add_argument("--key", type=Path, default=Path("/trust/model.pub"))
    options = parser.parse_args(argv)
    named, trust = os.environ.get("MODEL", ""), os.environ.get("MODEL_TRUST", "")
    if not named:
        raise RefusedError("MODEL is empty: the pod template's annotation pinwheel.io/model names no model yet", USAGE)
    if trust not in {"", "none"}:
        raise RefusedError("MODEL_TRUST may be `none` or nothing", USAGE)
    model = Reference.parse(named, pinned=True)
    current, record = options.models / "current", options.models / "current.json"
    template = held(current, record, model)
    if template is None:
        found = pull(model, options.models, options.key, trust)
        template = found.template
    else:
        wire.say(f"{model} is here")
    settings = inference(options.config, current, template)
    write(options.models / "inference.yaml", yaml.safe_dump(settings, sort_keys=True, allow_unicode=True))
    wire.say(f"{current} holds {model}, template {template}")
    return 0


def held(current: Path, record: Path, model: Reference) -> str | None:
    """The template of the model, if a run before this one brought it here; its files were checked then."""
    try:
        body = json.loads(record.read_text(encoding="utf-8"))
        whole = all((current / path).stat().st_size == size for path, size in body["files"].items())
        return str(body["template"]) if whole and body["model"] == str(model) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def pull(model: Reference, models: Path, key: Path, trust: str) -> Artifact:
    """Fetch, check, and put in place."""
    repository = Repository(model)
    # The digest of the reference is the manifest's: what it lists is fixed before a signature is looked at.
    found = artifact.parse(repository.manifest(model.digest), str(model))
    if trust == "none" and not key.exists():
        wire.say("MODEL_TRUST=none: this model is taken without a signature")
    else:
        signature.verify(repository, model, signature.read_public(key))
        wire.say(f"{model} is signed by the key in {key}")
    taken = [one for one in found.layers if one.kind in {artifact.WEIGHT, artifact.WEIGHT_CONFIG}]
    names = {one.path for one in taken}
    if "config.json" not in names or not any(one.kind == artifact.WEIGHT for one in taken) or not found.template:
        raise RefusedError(f"{model} is no whole model: config.json, weights or template are missing", POLICY)
    staging = models / f".fetching-{model.digest.removeprefix('sha256:')[:12]}"
    current, record = models / "current", models / "current.json"
    record.unlink(missing_ok=True)
    if current.exists() and not staging.exists():
        # Killed between the two steps below: what is there counts, once it is checked again.
        current.rename(staging)
    wanted = [Wanted(one.path, one.size, one.digest.removeprefix("sha256:")) for one in taken]
    clear(models, staging, {one.path for one in wanted})
    transfer.gather(staging, wanted, lambda one, target: repository.download(f"sha256:{one.sha256}", one.size, target))
    for one in taken:
        if one.kind == artifact.WEIGHT:
            artifact.tensors(staging / one.path)
    if current.exists():
        shutil.rmtree(current)
    staging.rename(current)
    files = {one.path: one.size for one in wanted}
    write(record, json.dumps({"files": files, "model": str(model), "template": found.template}, sort_keys=True))
    return found


def clear(models: Path, staging: Path, wanted: set[str]) -> None:
    """Remove what an earlier run began and nobody wants: other models' parts, and files that are not this model's."""
    for other in models.glob(".fetching-*"):
        if other != staging:
            shutil.rmtree(other)
    for file in sorted(staging.rglob("*")):
        known = str(file.relative_to(staging)).removesuffix(transfer.PART) in wanted
        if file.is_symlink() or (not file.is_dir() and not known):
            file.unlink()


def inference(config: Path, current: Path, template: str) -> dict[str, Any]:
    """The API's configuration for this model.

    Raises:
        RefusedError: it is none, or contradicts the model.
    """
    try:
        settings = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise RefusedError(f"{config} cannot be read: {type(problem).__name__}", USAGE) from None
    if not isinstance(settings, dict):
        raise RefusedError(f"{config} is no list of settings", USAGE)
    own = {"model_name_or_path": str(current), "template": template}
    for key, value in own.items():
        if settings.get(key, value) != value:
            raise RefusedError(f"{config} says {key}: {settings[key]}, the model's is {value}: take the line out", USAGE)
    for key in ("adapter_name_or_path", "trust_remote_code"):
        if settings.get(key):
            raise RefusedError(f"{config} sets {key}: the signed model is served, nothing beside it: take the line out", USAGE)
    return {**settings, **own}


def write(file: Path, text: str) -> None:
    """Whole or not at all."""
    part = file.with_name(f".{file.name}{transfer.PART}")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


if __name__ == "__main__":
    wire.start("fetch", main)
