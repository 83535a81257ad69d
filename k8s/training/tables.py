"""Tables in an experiment that LLaMA-Factory passes on to another library as they are: what may stand in them, by lists.

LLaMA-Factory's own keys are checked one by one (rules.py); in these tables a key could name code, a file or a model that
nothing pins.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_LISTS: Mapping[str, frozenset[str]] = {
    # transformers 5.5, optimization.py.
    "lr_scheduler_kwargs": frozenset(
        {
            *("num_cycles", "power", "lr_end", "min_lr", "min_lr_rate", "num_decay_steps", "num_stable_steps", "decay_type"),
            *("warmup_type", "min_lr_ratio", "factor", "patience", "mode", "threshold", "threshold_mode", "cooldown", "eps"),
            *("timescale", "warmup_lr_init_rate", "num_warmup_steps", "num_training_steps"),
        }
    ),
    # torch.utils.checkpoint.
    "gradient_checkpointing_kwargs": frozenset({"use_reentrant", "determinism_check", "preserve_rng_state", "debug"}),
    # transformers 5.5, trainer_pt_utils.py (AcceleratorConfig).
    "accelerator_config": frozenset(
        {
            *("split_batches", "dispatch_batches", "even_batches", "use_seedable_sampler", "non_blocking"),
            *("gradient_accumulation_kwargs", "use_configured_state", "num_steps", "adjust_scheduler", "sync_with_dataloader"),
            "sync_each_batch",
        }
    ),
    # transformers 5.5, training_args.py (fsdp_config).
    "fsdp_config": frozenset(
        {
            *("version", "min_num_params", "transformer_layer_cls_to_wrap", "backward_prefetch", "forward_prefetch"),
            *("limit_all_gathers", "use_orig_params", "sync_module_states", "cpu_ram_efficient_loading", "xla"),
            *("activation_checkpointing", "reshard_after_forward", "auto_wrap_policy", "cpu_offload", "state_dict_type"),
            *("xla_fsdp_v2", "xla_fsdp_grad_ckpt"),
        }
    ),
    # liger-kernel, transformers/monkey_patch.py.
    "liger_kernel_config": frozenset(
        {"rope", "swiglu", "geglu", "rms_norm", "layer_norm", "cross_entropy", "fused_linear_cross_entropy"}
    ),
    "generation_config": frozenset(
        {
            *("do_sample", "temperature", "top_p", "top_k", "num_beams", "max_length", "max_new_tokens", "repetition_penalty"),
            *("length_penalty", "min_p", "early_stopping"),
        }
    ),
}


def refused(config: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What is passed on and not taken: the key, what is wrong, what to do.

    Args:
        config: an experiment, as read.
    """
    for key, value in config.items():
        # LLaMA-Factory reads JSON in a string as a table, too.
        table = _parsed(value) if isinstance(value, str) and value.lstrip().startswith("{") else value
        if not isinstance(table, dict) or not table:
            continue
        if key not in _LISTS:
            yield key, "a table that is passed on to another library unseen", "leave it out"
            continue
        known = _LISTS[key]
        for name in _names(table):
            # Older names have the table's own in front: fsdp_transformer_layer_cls_to_wrap.
            if name.removeprefix("fsdp_") not in known:
                yield (
                    key,
                    f"{name[:80]!r} is passed on to another library unseen",
                    f"take it out; known are {', '.join(sorted(known))}",
                )


def _names(table: Any) -> Iterator[str]:
    if isinstance(table, dict):
        for name, value in table.items():
            yield str(name)
            yield from _names(value)
    elif isinstance(table, list):
        for value in table:
            yield from _names(value)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        # No table: LLaMA-Factory says so itself. Taken for one all the same, with a name that no list has.
        return {text: None}
