"""How many tokens a model takes, from its `config.json`: what vLLM 0.28 derives (`_get_and_verify_max_len`).

A server that is asked for more does not start. What `config.json` leaves out, and its class in transformers would fill in, is
not known here: then nothing is said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# vllm/transformers_utils/model_arch_config_convertor.py, `derive_max_model_len_and_key`: the smallest of these counts.
_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
# Their `max_position_embeddings` is what comes out of the scaling already.
_SCALED_ALREADY = frozenset({"su", "longrope", "llama3"})


def length(config: Mapping[str, Any]) -> int | None:
    """The context of a model in tokens; None where its configuration does not say it.

    Args:
        config: `config.json`.
    """
    # Of a model that also sees or hears, the part that writes counts.
    text = config.get("text_config", config)
    if not isinstance(text, Mapping):
        return None
    # Command-R's own key comes before all others.
    own = _number(text.get("model_max_length"))
    known = [own] if own else [number for key in _KEYS if (number := _number(text.get(key)))]
    if not known:
        return None
    tokens, factor = min(known), 1.0
    for rope in () if "gemma3" in str(text.get("model_type")) else _ropes(text):
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind in _SCALED_ALREADY:
            continue
        factor = _number(rope.get("factor", factor)) or 1.0
        if kind == "yarn":
            original = text.get("original_max_position_embeddings", rope.get("original_max_position_embeddings"))
            tokens = _number(original) or tokens
    return int(tokens * factor)


def read(file: Path) -> int | None:
    """`length` of a file; None where it cannot be read, which who loads the model says better."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return length(config) if isinstance(config, dict) else None


def _ropes(text: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """How positions are scaled: once, or for each kind of layer."""
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    if not isinstance(scaling, Mapping):
        return
    nested = [one for one in scaling.values() if isinstance(one, Mapping)]
    yield from nested or [scaling]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else None
