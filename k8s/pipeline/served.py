"""What the API's configuration may say of how a signed model is served: by lists, since LLaMA-Factory passes much of it on.

`vllm_config` goes to vLLM as it is (llamafactory/chat/vllm_engine.py), where a key can name another model, a plugin's class or
code of a hub. So only keys that set sizes, numbers and modes are taken, and values without a path or an address.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

# Of hparams/model_args.py, data_args.py and generating_args.py of LLaMA-Factory 0.9.5. `model_name_or_path` and `template` are
# those of the model: fetch.py compares them.
_SETTINGS = frozenset(
    {
        *("model_name_or_path", "template", "infer_backend", "infer_dtype", "use_kv_cache", "print_param_status", "flash_attn"),
        *("use_fast_tokenizer", "split_special_tokens", "low_cpu_mem_usage", "rope_scaling", "quantization_bit"),
        *("quantization_method", "quantization_type", "double_quantization", "vllm_maxlen", "vllm_gpu_util"),
        *("vllm_enforce_eager", "vllm_max_lora_rank", "vllm_config", "cutoff_len", "default_system", "enable_thinking"),
        *("image_max_pixels", "image_min_pixels", "image_do_pan_and_scan", "crop_to_patches", "video_max_pixels"),
        *("video_min_pixels", "video_fps", "video_maxlen", "use_audio_in_video", "audio_sampling_rate"),
        *("do_sample", "temperature", "top_p", "top_k", "num_beams", "max_length", "max_new_tokens", "repetition_penalty"),
        *("length_penalty", "skip_special_tokens", "finetuning_type", "stage"),
    }
)
# Of vllm/engine/arg_utils.py of vLLM 0.28.
_VLLM = frozenset(
    {
        *("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "enable_expert_parallel", "seed"),
        *("max_model_len", "max_num_seqs", "max_num_batched_tokens", "max_num_partial_prefills", "gpu_memory_utilization"),
        *("swap_space", "cpu_offload_gb", "block_size", "num_gpu_blocks_override", "kv_cache_dtype", "calculate_kv_scales"),
        *("enable_prefix_caching", "enable_chunked_prefill", "enforce_eager", "dtype", "quantization", "max_logprobs"),
        *("disable_log_stats", "disable_custom_all_reduce", "disable_sliding_window", "scheduling_policy", "async_scheduling"),
        *("limit_mm_per_prompt", "skip_mm_profiling", "distributed_executor_backend"),
    }
)
# Any other name is a class that vLLM imports (vllm/v1/executor/abstract.py).
_EXECUTORS = frozenset({"mp", "ray", "uni", "external_launcher", None})
# Free text, which the model reads and no loader.
_TEXT = frozenset({"default_system", "model_name_or_path", "template"})
_WORD = re.compile(r"[A-Za-z0-9_.+-]{0,64}")
_DEEP = 3


def refused(settings: Mapping[str, Any]) -> str:
    """The first setting that is not taken, with its value where that is the reason; empty where all are.

    Args:
        settings: of the API's configuration, as parsed.
    """
    for key, value in settings.items():
        if key not in _SETTINGS:
            # What says no says nothing: `trust_remote_code: false`.
            if value in (None, False, "", [], {}):
                continue
            return str(key)
        if key == "infer_backend" and value not in ("vllm", "huggingface"):
            return f"{key}: {value!r}"
        if key == "vllm_config":
            if inner := _table(value):
                return f"{key}: {inner}"
        elif key not in _TEXT and not _plain(value, _DEEP):
            return f"{key}: {value!r}"
    return ""


def _table(value: Any) -> str:
    """What in vLLM's own settings is not taken; they may be a table or, as LLaMA-Factory has it, JSON."""
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return repr(value[:80])
    if value in (None, "", {}):
        return ""
    if not isinstance(value, dict):
        return repr(value)[:80]
    return next((str(key)[:80] for key, inner in value.items() if not _taken(key, inner)), "")


def _taken(key: Any, value: Any) -> bool:
    """Whether one of vLLM's settings is taken."""
    if key == "distributed_executor_backend":
        return isinstance(value, (str, type(None))) and value in _EXECUTORS
    return key in _VLLM and _plain(value, _DEEP)


def _plain(value: Any, deep: int) -> bool:
    """Whether a value is a number, a mode's name, or a few of them: nothing that could be a path, an address or a template."""
    if isinstance(value, dict):
        return deep > 0 and all(_plain(key, 0) and _plain(inner, deep - 1) for key, inner in value.items())
    if isinstance(value, list):
        return deep > 0 and all(_plain(inner, deep - 1) for inner in value)
    return value is None or isinstance(value, (bool, int, float)) or (isinstance(value, str) and bool(_WORD.fullmatch(value)))
