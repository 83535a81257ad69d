"""From an experiment to a run: the configurations as the pod reads them, and the version that names all of it by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from common.files import sha256_bytes
from k8s.objects import strict_yaml
from k8s.training import base_model
from k8s.training.artifact import FileArtifact
from k8s.training.experiment import Experiment
from lockfiles.models.lockfile import PinnedModel
from oci.reference import ImageRef, short

FORMAT = 2
_WORK = "/work"
# What LLaMA-Factory reads when it loads a model and tokenizer, or writes the chat template: training and export must agree.
_EXPORTED = (
    "add_special_tokens",
    "add_tokens",
    "default_system",
    "enable_thinking",
    "flash_attn",
    "preserve_thinking",
    "resize_vocab",
    "rope_scaling",
    "split_special_tokens",
    "template",
    "tool_format",
    "use_fast_tokenizer",
)
# Checkpoints on the volume besides the one being written: what a retried step goes on from.
_KEPT = 2


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things lie in the pods.

    Attributes:
        base: the base model.
        dataset: the dataset's folder.
        output: what the training writes, checkpoints among it.
        export: the model that is registered.
        logs: a log for each step.
    """

    base: str
    dataset: str
    output: str
    export: str
    logs: str


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        version: `<run>-<12 hex>` of everything below and of what it was made from; a DNS label.
        experiment: the file in git.
        source: git revision of the checkout.
        model: repository of the trained model.
        dataset: the dataset, by digest.
        template: LLaMA-Factory's, that the model is served with as well.
        train_image: by digest.
        base_repository: where the base model is in the registry, if it is there.
        paths: in the pods.
        train: `train.yaml`.
        export: `export.yaml`.
        base: `base-model.json`.
        gpus: of the training's pod, where it has any.
    """

    version: str
    experiment: str
    source: str
    model: str
    dataset: str
    template: str
    train_image: str
    base_repository: str
    paths: Paths
    train: str
    export: str
    base: str
    gpus: int

    def json(self) -> str:
        """`run.json`."""
        body = {
            "format": FORMAT,
            "version": self.version,
            "experiment": self.experiment,
            "source": self.source,
            "model": self.model,
            "dataset": self.dataset,
            "template": self.template,
            "train-image": self.train_image,
            "base-repository": self.base_repository,
            "paths": asdict(self.paths),
        }
        return _json(body)

    def files(self) -> dict[str, str]:
        """The run's ConfigMap: what stands in /config of every step."""
        named = {"base-model.json": self.base, "export.yaml": self.export, "run.json": self.json(), "train.yaml": self.train}
        return dict(sorted(named.items()))


def of_experiment(experiment: Experiment, dataset: FileArtifact, registry: str, train_image: ImageRef, source: str) -> Run:
    """The run of an experiment. The same inputs give the same version; neither the registry nor the source's revision is one.

    Args:
        experiment: checked.
        dataset: its dataset's artifact.
        registry: the environment's.
        train_image: what it is trained in, by digest.
        source: git revision of the checkout.
    """
    base = _base(experiment.base)

    def made(version: str) -> tuple[Paths, str, str]:
        where = Paths(
            base=f"{_WORK}/models/{experiment.base.name}-{experiment.base.commit[:12]}",
            dataset=f"{_WORK}/datasets/{short(dataset.reference.digest)}",
            output=f"{_WORK}/runs/{version}/output",
            export=f"{_WORK}/runs/{version}/export",
            logs=f"{_WORK}/runs/{version}/logs",
        )
        return where, _yaml(_train(experiment.config, where)), _yaml(_export(experiment.config, where))

    # The version stands in the paths; what it is made of has a blank there.
    _, train, export = made("")
    content = {
        "format": FORMAT,
        "experiment": experiment.file,
        "text": sha256_bytes(experiment.text),
        "train": train,
        "export": export,
        "base": base,
        "dataset": dataset.reference.digest,
        "train-image": train_image.digest,
    }
    version = f"{experiment.run}-{hashlib.sha256(_json(content).encode()).hexdigest()[:12]}"
    where, train, export = made(version)
    return Run(
        version=version,
        experiment=experiment.file,
        source=source,
        model=f"{registry}/models/{experiment.name}",
        dataset=str(dataset.reference),
        template=str(experiment.config["template"]),
        train_image=str(train_image),
        base_repository=str(base_model.repository(experiment.base, registry)),
        paths=where,
        train=train,
        export=export,
        base=base,
        gpus=experiment.gpus or 1,
    )


def _train(config: Mapping[str, Any], where: Paths) -> dict[str, Any]:
    """The experiment's own keys, the platform's defaults below them and its rules above."""
    defaults = {"logging_steps": 10, "save_strategy": "steps", "save_total_limit": _KEPT}
    rules = {
        "model_name_or_path": where.base,
        "dataset_dir": where.dataset,
        "output_dir": where.output,
        # LLaMA-Factory goes on from the last checkpoint in output_dir by itself, unless it is told to overwrite it.
        "overwrite_output_dir": False,
        "save_only_model": False,
        "report_to": "none",
        "trust_remote_code": False,
    }
    return {**defaults, **config, **rules}


def _export(config: Mapping[str, Any], where: Paths) -> dict[str, Any]:
    """An adapter is merged into its base; a model trained whole is written anew, in the form that is served."""
    kept = {key: config[key] for key in _EXPORTED if key in config}
    if config["finetuning_type"] == "lora":
        model = {"model_name_or_path": where.base, "adapter_name_or_path": where.output}
    else:
        model = {"model_name_or_path": where.output}
    return {
        **kept,
        **model,
        "finetuning_type": config["finetuning_type"],
        "trust_remote_code": False,
        "export_dir": where.export,
        # The step has a GPU no more than it needs one: merging is adding matrices.
        "export_device": "cpu",
        "export_legacy_format": False,
        "export_size": config.get("export_size", 5),
    }


def _base(model: PinnedModel) -> str:
    files = [asdict(one) for one in model.files]
    return _json({"name": model.name, "repo": model.repo, "revision": model.commit, "files": files})


def _json(body: object) -> str:
    return json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _yaml(body: Mapping[str, Any]) -> str:
    return strict_yaml.dump([_sorted(body)])


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(one) for one in value] if isinstance(value, list) else value
