"""Whether the lengths that an experiment and the set name fit the base model's context: said before hours of training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from common import console
from k8s.objects import pods, strict_yaml
from k8s.objects.findings import Finding
from k8s.objects.manifests import Manifest
from k8s.objects.pods import mapping
from k8s.pipeline import context
from k8s.training.names import SERVING_NAMESPACE
from lockfiles import store
from lockfiles.models.lockfile import PinnedModel

# LLaMA-Factory's own, where an experiment has none (hparams/data_args.py).
_CUTOFF = 2048


def served(objects: Sequence[Manifest]) -> int | None:
    """The tokens that a set serves with (`vllm_maxlen`); None where it does not serve by LLaMA-Factory's api, or names none.

    Args:
        objects: of the set.
    """
    here = [one for one in objects if one.namespace == SERVING_NAMESPACE]
    if not any(
        _is_api(container) for one in here for template in pods.templates(one) for _, container in template.containers()
    ):
        return None
    for manifest in here:
        for text in mapping(manifest.body.get("data")).values() if manifest.kind == "ConfigMap" else ():
            for one in strict_yaml.documents(text, manifest.file) if isinstance(text, str) else ():
                settings = {} if isinstance(one, Finding) else mapping(one[0])
                if settings.get("infer_backend") == "vllm" and type(settings.get("vllm_maxlen")) is int:
                    return int(settings["vllm_maxlen"])
    return None


def tell(base: PinnedModel, config: Mapping[str, Any], serves: int | None) -> None:
    """Say where the base model takes fewer tokens than the set serves with, or than the rows are cut at.

    Nothing is said where its `config.json` is not in the store, or does not say its context.

    Args:
        base: what the experiment starts from.
        config: the experiment's.
        serves: what `served` says; None where the model is not to be served.
    """
    takes = context.length(configuration(base))
    # An experiment that stretches the positions changes the context; to what, LLaMA-Factory knows alone.
    if takes is None or config.get("rope_scaling"):
        return
    if serves is not None and takes < serves:
        console.info(f"context      {base.name} takes {takes} tokens, the set serves with vllm_maxlen: {serves}")
        console.info(f"             the model will be served with {takes}")
    cutoff = config.get("cutoff_len", _CUTOFF)
    if isinstance(cutoff, int) and takes < cutoff:
        own = "" if "cutoff_len" in config else ", LLaMA-Factory's default,"
        what = f"cutoff_len: {cutoff}{own} is more than the {takes} tokens that {base.name} takes"
        console.warn(f"{what}: longer rows fail or teach nothing there; write cutoff_len: {takes}")


def _is_api(container: Mapping[str, Any]) -> bool:
    words = [str(word) for key in ("command", "args") for word in container.get(key) or ()]
    return words[:2] == ["llamafactory-cli", "api"]


def configuration(base: PinnedModel) -> dict[str, Any]:
    """A model's `config.json`; empty where the store has it not, or it is none."""
    for file in base.files:
        if file.path == "config.json" and store.has(file.artifact):
            with store.opened(file.artifact) as opened:
                try:
                    config = json.load(opened)
                except (ValueError, RecursionError):
                    return {}
            return config if isinstance(config, dict) else {}
    return {}
