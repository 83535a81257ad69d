"""What a training leaves behind, read without torch: the toolkit does not have it."""

from __future__ import annotations

import json
import math

from common.errors import SmokeError


def losses_of(log: str) -> tuple[float, ...]:
    """The losses of LLaMA-Factory's `trainer_log.jsonl`.

    Raises:
        SmokeError: there are none, or one is no number.
    """
    losses = [entry["loss"] for line in log.splitlines() if "loss" in (entry := json.loads(line))]
    if not losses or not all(isinstance(loss, float) and math.isfinite(loss) for loss in losses):
        raise SmokeError(f"the training log holds no usable losses: {losses[:5]}", where="adapter/trainer_log.jsonl")
    return tuple(losses)


def tensors(safetensors: bytes) -> dict[str, bytes]:
    """The tensors of a safetensors file (eight bytes of header size, a JSON header, the data), by name."""
    size = int.from_bytes(safetensors[:8], "little")
    header = json.loads(safetensors[8 : 8 + size])
    data = memoryview(safetensors)[8 + size :]
    return {name: bytes(data[slice(*entry["data_offsets"])]) for name, entry in header.items() if name != "__metadata__"}
