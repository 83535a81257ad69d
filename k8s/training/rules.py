"""What an experiment may say: LLaMA-Factory's own keys and kinds of values, and what the platform sets or refuses."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from k8s.objects.findings import Finding, Path
from k8s.training import tables
from k8s.training.keys import Key, Known

# A finding about one key: key, what, fix.
Said = tuple[str, str, str]

# Where things lie in the pod, and what makes a retried step resume.
_PLATFORM = frozenset(
    {
        "output_dir",
        "overwrite_output_dir",
        "logging_dir",
        "cache_dir",
        "media_dir",
        "tokenized_path",
        "model_revision",
        "offload_folder",
        "profiler_output_dir",
        "export_dir",
        "export_device",
        "export_legacy_format",
        "export_hub_model_id",
        "export_quantization_bit",
        "export_quantization_dataset",
        "export_quantization_nsamples",
        "export_quantization_maxlen",
    }
)
_SECRETS = frozenset(
    {
        "hf_hub_token",
        "ms_hub_token",
        "om_hub_token",
        "hub_token",
        "swanlab_api_key",
        "swanlab_lark_secret",
        "swanlab_lark_webhook_url",
    }
)
_BASE = "pin what you start from in lockfiles/models.in, merged, and name it in model_name_or_path"
_ONE_MODEL = "leave it out: a pod gets one model, the base"
_REFUSED: Mapping[str, tuple[str, str]] = {
    "adapter_name_or_path": ("an adapter is no input of a run", _BASE),
    "adapter_folder": ("an adapter is no input of a run", _BASE),
    "resume_from_checkpoint": (
        "a checkpoint is no input of a run",
        "leave it out: a step that is tried again resumes by itself",
    ),
    "ref_model": ("a second model is asked for", _ONE_MODEL),
    "ref_model_adapters": ("a second model is asked for", _ONE_MODEL),
    "reward_model": ("a second model is asked for", _ONE_MODEL),
    "reward_model_adapters": ("a second model is asked for", _ONE_MODEL),
    "ray_init_kwargs": ("there is no Ray in the cluster", "leave it out"),
    "master_addr": ("a run has one pod", "leave it out"),
    "master_port": ("a run has one pod", "leave it out"),
}
_NO_CODE = "leave it out, or false: code from a hub is not pinned and never runs"
_NOT_PUSHED = "leave it out: the register step puts the model into the environment's registry"
# The only values that a key may have.
_ONLY: Mapping[str, tuple[tuple[Any, ...], str, str]] = {
    "do_train": ((True,), "nothing would be trained", "write `do_train: true`"),
    "trust_remote_code": ((False,), "code from a model repository would run in the pod", _NO_CODE),
    "push_to_hub": ((False,), "the model would leave by a way of its own", _NOT_PUSHED),
    "report_to": (
        ("none", None, [], ["none"]),
        "metrics would go to a service outside",
        "leave it out: logs go with the model",
    ),
    "use_swanlab": ((False,), "metrics would go to a service outside", "leave it out: logs go with the model"),
    "save_only_model": ((False,), "a checkpoint without the optimizer's state cannot be resumed", "leave it out"),
    "ray_num_workers": ((1,), "there is no Ray in the cluster", "leave it out; `gpus` gives a run several GPUs"),
    "shift_attn": ((False,), "LongLoRA wants a transformers below 4.48, the train image has a newer one", "leave it out"),
    "infer_backend": (("huggingface",), "a training has no inference backend", "leave it out"),
    "finetuning_type": (("lora", "full", "freeze"), "not a kind this platform exports", "write lora, full or freeze"),
    "save_strategy": (("steps", "epoch"), "a retried step would begin anew", "write steps or epoch, or leave it out: steps"),
}
_STAGES = {"sft", "pt", "dpo", "kto"}
# What a key needs beside LLaMA-Factory itself (llamafactory/hparams/parser.py, `_check_extra_dependencies`, and the
# quantization of llamafactory/model/model_utils/quantization.py).
_PACKAGES: Mapping[str, str] = {
    "deepspeed": "deepspeed",
    "enable_liger_kernel": "liger-kernel",
    "use_liger_kernel": "liger-kernel",
    "mixture_of_depths": "mixture-of-depth",
    "quantization_bit": "bitsandbytes",
    "use_adam_mini": "adam-mini",
    "use_apollo": "apollo-torch",
    "use_badam": "badam",
    "use_galore": "galore-torch",
    "use_kt": "kt-kernel",
    "use_unsloth": "unsloth",
}
# Keys whose value may be the name of a file, which would not be in the pod.
_FILES = frozenset(
    {"accelerator_config", "fsdp_config", "generation_config", "hyper_parallel_args", "new_special_tokens_config"}
)
_POSITIVE = (
    "cutoff_len",
    "gradient_accumulation_steps",
    "learning_rate",
    "logging_steps",
    "lora_rank",
    "num_train_epochs",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "save_steps",
)
_NEEDED = ("model_name_or_path", "template", "dataset", "do_train", "stage", "finetuning_type")


def check(config: Mapping[str, Any], lines: Mapping[Path, int], file: str, known: Known) -> Iterator[Finding]:
    """Everything that is wrong with the keys and values of an experiment, whatever else it names.

    Args:
        config: as read.
        lines: of its keys.
        file: for messages.
        known: what LLaMA-Factory of the lock takes.
    """
    parts: tuple[Callable[[Mapping[str, Any], Known], Iterator[Said]], ...] = (
        *(_keys, _missing, _platform, _values, _together),
        lambda found, _: (said for said in tables.refused(found) if not _handled(said[0])),
    )
    for part in parts:
        for key, what, fix in part(config, known):
            yield Finding(file, lines.get((key,), 1), "", key, what, fix)


def _near(name: str, names: Any) -> str:
    close = difflib.get_close_matches(name, sorted(names), 1, 0.75)
    return f"did you mean {close[0]}?" if close else ""


def _keys(config: Mapping[str, Any], known: Known) -> Iterator[Said]:
    for name, value in config.items():
        key = known.keys.get(name)
        if key is None:
            fix = _near(name, known.keys) or "see the arguments in LLaMA-Factory's documentation, or remove it"
            yield name, f"LLaMA-Factory {known.version} has no key of this name", fix
        elif not _handled(name) and not key.takes(value):
            yield name, f"{_shown(value)} is not what it takes", _kind(key, value)
    template = config.get("template")
    if isinstance(template, str) and template not in known.templates:
        fix = _near(template, known.templates) or "take one that fits the base model: its documentation names it"
        yield "template", f"LLaMA-Factory {known.version} has no template {template!r}", fix


def _handled(name: str) -> bool:
    """Whether a rule below says more of the value than its kind."""
    return name in _ONLY or name in _PLATFORM or name in _SECRETS or name in _REFUSED


def _kind(key: Key, value: Any) -> str:
    if key.choices:
        near = _near(value, key.choices) if isinstance(value, str) else ""
        return near or f"write one of {', '.join(sorted(key.choices))}"
    quoted = isinstance(value, str) and not {str, list, dict} & set(key.types)
    return f"write a value of type {key.kind}" + (", without quotes" if quoted else "")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _missing(config: Mapping[str, Any], _: Known) -> Iterator[Said]:
    why = {"template": "the served model has to render as it was trained", "dataset": "there is nothing to train on"}
    for key in _NEEDED:
        if key not in config:
            only = _ONLY.get(key)
            yield key, f"missing: {why.get(key, 'a run says what it is')}", only[2] if only else "write it"


def _platform(config: Mapping[str, Any], known: Known) -> Iterator[Said]:
    for key, value in config.items():
        if key in _PLATFORM:
            yield key, "the platform sets it", "leave it out"
        elif key in _SECRETS:
            yield key, "a secret would stand in git", "remove it and replace that secret: whoever reads the history knows it"
        elif key in _REFUSED and value is not None:
            what, fix = _REFUSED[key]
            yield key, what, fix
        elif key in _ONLY:
            allowed, what, fix = _ONLY[key]
            # By type as well: 1 is not true.
            if not any(type(one) is type(value) and one == value for one in allowed):
                yield key, f"{_shown(value)}: {what}", fix
        elif key in _PACKAGES and value and _PACKAGES[key] not in known.packages:
            package = _PACKAGES[key]
            yield (
                key,
                f"it needs {package}, which the train image has not",
                f"leave it out, or lock {package} in lockfiles/train.in",
            )
        elif key in _FILES and isinstance(value, str):
            yield key, f"{_shown(value)} names a file, which would not be in the pod", "write its content here, or leave it out"
    stage = config.get("stage")
    if isinstance(stage, str) and stage in {"rm", "ppo"}:
        what = "it trains or needs a reward model, which nothing here serves"
        yield "stage", f"{stage}: {what}", f"write one of {', '.join(sorted(_STAGES))}"


def _values(config: Mapping[str, Any], _: Known) -> Iterator[Said]:
    for key, value in config.items():
        for text in _strings(value):
            if text.startswith(("/", "~")) and not _handled(key):
                yield key, f"{_shown(text)} is a path of some machine", "leave it out, or write it relative to the experiment"
            elif "://" in text and not _handled(key):
                yield key, f"{_shown(text)} is an address: what lies there is not pinned", "leave it out"
    for key in _POSITIVE:
        value = config.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and not value > 0:
            yield key, f"{value} is not above zero", "write a positive number"


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)


def _together(config: Mapping[str, Any], _: Known) -> Iterator[Said]:
    """What LLaMA-Factory would refuse in the pod, on a GPU that was waited for (hparams/parser.py, `get_train_args`)."""
    share = config.get("val_size", 0)
    held_out = isinstance(share, (int, float)) and share > 0
    evaluates = config.get("do_eval") is True or config.get("eval_strategy", "no") != "no" or config.get("do_predict") is True
    if held_out and config.get("eval_dataset"):
        yield "val_size", "val_size and eval_dataset exclude each other", "leave one of them out"
    if evaluates and not held_out and not config.get("eval_dataset"):
        key = next(one for one in ("do_eval", "eval_strategy", "do_predict") if one in config)
        yield key, "there is nothing to evaluate on", "write val_size or eval_dataset"
    if config.get("streaming") is True and "max_steps" not in config:
        yield "streaming", "a stream has no end", "write max_steps"
    if config.get("streaming") is True and config.get("max_samples") is not None:
        yield "max_samples", "streaming and max_samples exclude each other", "leave one of them out; max_steps ends a stream"
    if config.get("streaming") is True and isinstance(share, float) and 0 < share < 1:
        yield "val_size", "of a stream no share can be held out", "write a whole number of rows"
    if config.get("mask_history") is True and config.get("train_on_prompt") is True:
        yield "mask_history", "mask_history and train_on_prompt exclude each other", "leave one of them out"
    if config.get("interleave_probs") is not None and config.get("mix_strategy", "concat") == "concat":
        yield "interleave_probs", "it is for datasets that are mixed", "write mix_strategy: interleave_under, or leave it out"
    if config.get("quantization_bit") and config.get("finetuning_type") not in {"lora", None}:
        yield "quantization_bit", "only lora trains upon a quantized model", "write `finetuning_type: lora`"
    if config.get("bf16") is True and config.get("fp16") is True:
        yield "fp16", "bf16 and fp16 exclude each other", "leave one of them out"
    if config.get("stage", "sft") != "sft":
        for key in ("predict_with_generate", "neat_packing", "train_on_prompt", "mask_history"):
            if config.get(key) is True:
                yield key, f"{key} is for the stage sft only", "leave it out"
