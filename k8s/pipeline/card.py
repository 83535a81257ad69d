"""The model card: what was made, of what, how, and how well; in the form that hubs read (Hugging Face, "Model Cards").

The same run gives the same card, byte for byte: nothing of the moment goes into it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import plain
from .experiment import Base, Run

# Bytes read of a file at most; our own files are far smaller.
_MOST = 16 << 20


@dataclass(frozen=True, slots=True)
class Facts:
    """What the card states of a model beside its run.

    Attributes:
        lock: digest of the base model's lock, `sha256:…`.
        size: parameters, such as `8.03b`.
        precision: of most of them, such as `bf16`.
        license: the keys about its licence from the front matter of the base model's card.
        metrics: of the training.
        train, export: the configurations, as they ran.
    """

    lock: str
    size: str
    precision: str
    license: Mapping[str, str]
    metrics: Mapping[str, float]
    train: str
    export: str


def licence(base: Path) -> dict[str, str]:
    """The keys about the licence in the base model's own card; empty if it has none."""
    text = _text(base / "README.md")
    if not text.startswith("---\n"):
        return {}
    try:
        head = yaml.safe_load(text[4:].partition("\n---")[0])
    except yaml.YAMLError:
        return {}
    front = head if isinstance(head, dict) else {}
    keys = ("license", "license_name", "license_link")
    return {key: front[key] for key in keys if isinstance(front.get(key), str) and len(front[key]) < 200}


def metrics(output: Path) -> dict[str, float]:
    """The numbers that LLaMA-Factory wrote about the training, and the last loss of its log."""
    numbers: dict[str, float] = {}
    for name in ("train_results.json", "all_results.json"):
        numbers |= _numbers(_text(output / name))
    for line in _text(output / "trainer_log.jsonl").splitlines():
        loss = _numbers(line).get("loss")
        if loss is not None:
            numbers["last_loss"] = loss
    return dict(sorted(numbers.items()))


def text(run: Run, base: Base, facts: Facts) -> str:
    """The card, Markdown."""
    config = yaml.safe_load(facts.train)
    config = config if isinstance(config, dict) else {}
    stage, tuning = str(config.get("stage", "sft")), str(config.get("finetuning_type", "lora"))
    front: dict[str, Any] = {
        # Hubs look the base up by this name.
        **({"base_model": base.repo, "base_model_relation": "finetune"} if base.repo else {}),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": sorted({"llama-factory", stage, tuning}),
        **facts.license,
    }
    rows = [
        ("base model", f"{base.called} at revision {base.revision}"),
        ("base model's lock", f"{facts.lock} ({len(base.files)} files)"),
        (
            "licence of the base model",
            facts.license.get("license_name") or facts.license.get("license", "unknown: see the base model"),
        ),
        ("parameters", f"{facts.size}, {facts.precision}"),
        ("data set", str(run.dataset)),
        ("experiment", f"{run.experiment} at source {run.source}"),
        ("version", run.version),
        ("train image", run.train_image),
        ("template", f"{run.template} (LLaMA-Factory)"),
    ]
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=True, allow_unicode=True).rstrip(),
        "---",
        f"# {run.model.repository.rpartition('/')[2]}",
        "",
        f"{base.called}, trained further ({stage}, {tuning}) with LLaMA-Factory, merged, and exported as one model.",
        "",
        "| what | which |",
        "|---|---|",
        *(f"| {_cell(key)} | {_cell(value)} |" for key, value in rows),
        "",
        "## Metrics",
        "",
        *([] if facts.metrics else ["The training wrote none.", ""]),
        *(["| metric | value |", "|---|---|"] if facts.metrics else []),
        *(f"| {_cell(key)} | {value:.6g} |" for key, value in facts.metrics.items()),
        *(["", "Measured on the training's own data, unless a name starts with `eval`.", ""] if facts.metrics else []),
        "## How it was made",
        "",
        "The base model's files were checked against the lock, the data set was pulled by digest, and both steps ran in the",
        "train image named above, by its digest. The log of each step is in `logs/`, the inputs are in `training/`.",
        "",
        "`llamafactory-cli train`:",
        "",
        *_quoted(facts.train),
        "",
        "`llamafactory-cli export`:",
        "",
        *_quoted(facts.export),
    ]
    return "\n".join(lines) + "\n"


def _quoted(config: str) -> list[str]:
    # Indented, not fenced: no line of a configuration can end the block.
    return [f"    {line}".rstrip() for line in config.rstrip().splitlines()]


def _cell(value: str) -> str:
    return " ".join(value.replace("|", "\\|").replace("<", "&lt;").split())


def _numbers(body: str) -> dict[str, float]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    items = values.items() if isinstance(values, dict) else ()
    return {str(key)[:80]: float(value) for key, value in items if type(value) in {int, float}}


def _text(file: Path) -> str:
    try:
        return (plain.read(file, _MOST) or b"").decode(errors="replace")
    except OSError:
        return ""
