"""Bring the model of this pod onto its volume: the init container of inference.

    python -m pinwheel_pipeline.fetch [--config /app/config/inference.yaml] [--models /models] [--key /trust/model.pub]

MODEL is the model's reference by digest (the pod's annotation `pinwheel.io/model`). It is pulled with the login that
`$DOCKER_CONFIG/config.json` holds, if any. Its cosign signature has to hold by the public key; where there is no key, nothing
is taken, unless MODEL_TRUST is `none`. The files lie in `<models>/current` as soon as all of them are there and right, and
`<models>/inference.yaml` is the configuration with `model_name_or_path` and `template` of this model, and with no larger
`vllm_maxlen` than the model takes: vLLM would not start. A model that is whole already, after a restart of the pod's
containers, is not fetched again. With MODEL_DOWNLOAD=no, in a preflight, none of its files is fetched: it is only seen
whether the registry holds all of them, the signature holds, and the configuration fits.

Exit codes: 2 settings, 10 this machine, 11 bytes, 14 the registry, 15 the model is refused.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from common.errors import PolicyError, RegistryError, UsageError
from common.files import write_whole
from oci import envelope, signature
from oci.client.client import Client
from oci.client.download import PART
from oci.client.target import Registry
from oci.envelope import PublicKey
from oci.reference import ImageRef

from . import artifact, context, served
from .artifact import Artifact, Layer
from .files import PinnedFile, gather
from .program import PATIENCE, say, start

# LLaMA-Factory's own, where the configuration has none (hparams/model_args.py).
_MAXLEN = 4096


def main(argv: list[str]) -> int:
    """Run the program; returns the exit code."""
    parser = argparse.ArgumentParser(prog="fetch")
    parser.add_argument("--config", type=Path, default=Path("/app/config/inference.yaml"))
    parser.add_argument("--models", type=Path, default=Path("/models"))
    parser.add_argument("--key", type=Path, default=Path("/trust/model.pub"))
    options = parser.parse_args(argv)
    reference, trust, download = (os.environ.get(name, "") for name in ("MODEL", "MODEL_TRUST", "MODEL_DOWNLOAD"))
    if not reference:
        raise UsageError("MODEL is empty: the pod template's annotation pinwheel.io/model names no model yet")
    if trust not in {"", "none"}:
        raise UsageError("MODEL_TRUST may be `none` or nothing")
    if download not in {"", "no"}:
        raise UsageError("MODEL_DOWNLOAD may be `no` or nothing")
    try:
        model = ImageRef.in_registry(reference, pinned=True)
    except ValueError as problem:
        raise UsageError(str(problem), where="MODEL") from None
    current, record = options.models / "current", options.models / "current.json"
    if download:
        inference(options.config, current, check(model, options.key, trust).template)
        say(f"{model} may be fetched: nothing of it was")
        return 0
    template = template_of_current(current, record, model)
    if template is None:
        pulled = pull(model, options.models, options.key, trust)
        template = pulled.template
    else:
        say(f"{model} is here")
    settings = inference(options.config, current, template)
    write_whole(options.models / "inference.yaml", yaml.safe_dump(settings, sort_keys=True, allow_unicode=True))
    say(f"{current} holds {model}, template {template}")
    return 0


def template_of_current(current: Path, record: Path, model: ImageRef) -> str | None:
    """The template of the model, if an earlier run fetched it, and checked its files then; else None."""
    try:
        body = json.loads(record.read_text(encoding="utf-8"))
        whole = all((current / path).stat().st_size == size for path, size in body["files"].items())
        return str(body["template"]) if whole and body["model"] == str(model) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def check(model: ImageRef, key: Path, trust: str) -> Artifact:
    """See that a model is in the registry, whole and signed."""
    # Who tries may try again: nothing waits for it.
    patience = dataclasses.replace(PATIENCE, tries=3)
    with Client(Registry(model.registry, f"{model.repository}/"), patience) as client:
        found, layers = _verified(client, model, key, trust)
        for layer in layers:
            if not client.exists(model.repository, layer.digest, layer.size):
                what = f"the registry lacks {layer.path} of {model}"
                raise RegistryError(what, where=layer.digest, fix="push the model again")
    return found


def pull(model: ImageRef, models: Path, key: Path, trust: str) -> Artifact:
    """Fetch a model, check it, and put it in place."""
    with Client(Registry(model.registry, f"{model.repository}/"), PATIENCE) as client:
        return _pull(client, model, models, key, trust)


def _verified(client: Client, model: ImageRef, key: Path, trust: str) -> tuple[Artifact, list[Layer]]:
    """What the manifest says, and what of it is served; the signature holds."""
    # The reference names the manifest's digest: its list of files is fixed before the signature is checked.
    model_artifact = artifact.parse(client.manifest(model.repository, model.digest), str(model))
    if trust == "none" and not key.exists():
        say("MODEL_TRUST=none: this model is taken without a signature")
    else:
        signature.verify(client, model, read_public(key))
        say(f"{model} is signed by the key in {key}")
    return model_artifact, artifact.servable(model_artifact, str(model))


def _pull(client: Client, model: ImageRef, models: Path, key: Path, trust: str) -> Artifact:
    model_artifact, layers = _verified(client, model, key, trust)
    staging = models / f".fetching-{model.digest.removeprefix('sha256:')[:12]}"
    current, record = models / "current", models / "current.json"
    record.unlink(missing_ok=True)
    if current.exists() and not staging.exists():
        # An earlier run was killed between the two steps below: use its files, once they are checked again.
        current.rename(staging)
    files_needed = [PinnedFile(layer.path, layer.size, layer.digest.removeprefix("sha256:")) for layer in layers]
    clear(models, staging, {file.path for file in files_needed})
    gather(
        staging,
        files_needed,
        lambda file, target: client.download(model.repository, f"sha256:{file.sha256}", file.size, target),
    )
    for weights in (layer for layer in layers if layer.kind == artifact.WEIGHT):
        artifact.tensors(staging / weights.path)
    if current.exists():
        shutil.rmtree(current)
    staging.rename(current)
    files = {file.path: file.size for file in files_needed}
    write_whole(record, json.dumps({"files": files, "model": str(model), "template": model_artifact.template}, sort_keys=True))
    return model_artifact


def read_public(file: Path) -> PublicKey:
    """The key that a model's signature is checked with.

    Raises:
        PolicyError: there is no key: then no model is taken.
        UsageError: it is no public key over P-256.
    """
    try:
        return envelope.public_key(file.read_bytes(), str(file))
    except OSError as problem:
        what = f"no public key to check the model's signature with: {problem.strerror}"
        raise PolicyError(what, where=str(file), fix="put it into the Secret model-trust") from None


def clear(models: Path, staging: Path, keep: set[str]) -> None:
    """Remove what earlier runs left: parts of other models, and files that do not belong to this one."""
    for folder in models.glob(".fetching-*"):
        if folder != staging:
            shutil.rmtree(folder)
    for file in sorted(staging.rglob("*")):
        is_needed = str(file.relative_to(staging)).removesuffix(PART) in keep
        if file.is_symlink() or (not file.is_dir() and not is_needed):
            file.unlink()


def inference(config: Path, current: Path, template: str) -> dict[str, Any]:
    """The API's configuration for this model.

    Raises:
        UsageError: the file is no configuration, or contradicts the model.
    """
    try:
        settings = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise UsageError(f"{config} cannot be read: {type(problem).__name__}") from None
    if not isinstance(settings, dict):
        raise UsageError(f"{config} is not a mapping of settings")
    own = {"model_name_or_path": str(current), "template": template}
    for key, value in own.items():
        if settings.get(key, value) != value:
            raise UsageError(f"{config} says {key}: {settings[key]}, the model's is {value}: take the line out")
    if refused := served.refused(settings):
        raise UsageError(f"{config} sets {refused}: the signed model is served, nothing beside it: take the line out")
    # Written, not left to a default: a model that names code of its own (auto_map) is loaded without.
    return {**settings, **own, "trust_remote_code": False, **_fitting(settings, current / "config.json")}


def _fitting(settings: dict[str, Any], config: Path) -> dict[str, int]:
    """`vllm_maxlen` as long as the model's context, where the configuration asks for more."""
    asked, takes = settings.get("vllm_maxlen", _MAXLEN), context.read(config)
    if settings.get("infer_backend") != "vllm" or type(asked) is not int or takes is None or asked <= takes:
        return {}
    say(f"vllm_maxlen: {takes} in place of {asked}: the model takes no more tokens ({config})")
    return {"vllm_maxlen": takes}


if __name__ == "__main__":
    start("fetch", main)
