"""What a training leaves behind, read without torch: the toolkit does not have it."""

from __future__ import annotations

import json
import math

from common.errors import SmokeError


def steps_of(log: str) -> tuple[tuple[int, float], ...]:
    """The steps of LLaMA-Factory's `trainer_log.jsonl`, in its order, each with its loss.

    Raises:
        SmokeError: there are none, a loss is no number, or a line is broken.
    """
    try:
        entries = [entry for line in log.splitlines() if "loss" in (entry := json.loads(line))]
    except ValueError as problem:
        raise SmokeError(f"the training log holds a line that is no JSON: {problem}", where="trainer_log.jsonl") from None
    if not entries or not all(isinstance(entry["loss"], float) and math.isfinite(entry["loss"]) for entry in entries):
        losses = [entry["loss"] for entry in entries]
        raise SmokeError(f"the training log holds no usable losses: {losses[:5]}", where="trainer_log.jsonl")
    return tuple((entry["current_steps"], entry["loss"]) for entry in entries)


def losses_of(log: str) -> tuple[float, ...]:
    """The losses of the log, step by step.

    Raises:
        SmokeError: as `steps_of`.
    """
    return tuple(loss for _, loss in steps_of(log))


def tensors(safetensors: bytes) -> dict[str, bytes]:
    """The tensors of a safetensors file (eight bytes of header size, a JSON header, the data), by name."""
    size = int.from_bytes(safetensors[:8], "little")
    header = json.loads(safetensors[8 : 8 + size])
    data = memoryview(safetensors)[8 + size :]
    return {name: bytes(data[slice(*entry["data_offsets"])]) for name, entry in header.items() if name != "__metadata__"}
