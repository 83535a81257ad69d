"""Checkpoints that a training may go on from, and those that were being written when it was killed.

transformers 5.5.4 writes a checkpoint file by file into its final folder (trainer.py, `_save_checkpoint`): weights, optimizer,
scheduler, random numbers, and `trainer_state.json` at last. It goes on from the folder with the highest number, whatever that
holds; so one that is torn would fail every further try.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from common.errors import PinwheelError

from . import artifact, plain

_CHECKPOINT = re.compile(r"checkpoint-[0-9]+")
TORN = "torn-"
_STATE = "trainer_state.json"
_WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "adapter_model.bin", "pytorch_model.bin")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_RESUMED = ("optimizer.pt", "scheduler.pt")
# As torch.save writes them: zip archives, whose table of contents comes at the end.
_ARCHIVES = (".pt", ".pth", ".bin")


def set_aside(output: Path) -> list[str]:
    """Rename the incomplete checkpoints of a folder, so that the last whole one is gone on from.

    Those that were set aside before are deleted: a disk that is full tears one at each try.

    Args:
        output: the training's `output_dir`; need not be there.

    Returns:
        What was done, a line each, in the order of the steps.
    """
    torn = {folder: why for folder in _folders(output) if (why := incomplete(folder))}
    if torn:
        for old in output.glob(f"{TORN}checkpoint-*"):
            shutil.rmtree(old)
    lines = []
    for folder, why in torn.items():
        folder.rename(folder.with_name(TORN + folder.name))
        lines.append(f"{folder.name} is torn ({why}): set aside as {TORN}{folder.name}")
    return lines


def incomplete(folder: Path) -> str:
    """What is wrong with a checkpoint; empty where it is whole.

    Raises:
        PolicyError: a link or a pipe lies where a file of it belongs.
    """
    try:
        data = plain.read(folder / _STATE)
        if data is None:
            return f"{_STATE} is missing"
        state = json.loads(data)
        if not isinstance(state, dict) or not isinstance(state.get("global_step"), int):
            return f"{_STATE} is cut short"
    except (ValueError, RecursionError):
        return f"{_STATE} is cut short"
    there = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    if broken := next((name for name in there if not _is_whole(folder / name)), ""):
        return f"{broken} is cut short"
    # Of several processes that share one model each writes a part, under names of its own.
    if any("fsdp" in name for name in there):
        return ""
    return next((f"{name} is missing" for name in _missing(folder, set(there))), "")


def _folders(output: Path) -> list[Path]:
    found = [one for one in output.glob("checkpoint-*") if _CHECKPOINT.fullmatch(one.name) and one.is_dir()]
    return sorted(found, key=lambda one: int(one.name.partition("-")[2]))


def _is_whole(file: Path) -> bool:
    if file.suffix == ".safetensors":
        try:
            artifact.tensors(file)
        except PinwheelError:
            return False
    return zipfile.is_zipfile(file) if file.suffix in _ARCHIVES else True


def _missing(folder: Path, there: set[str]) -> Iterator[str]:
    index = next((name for name in _INDEXES if name in there), "")
    if index:
        try:
            shards = set(json.loads(plain.read(folder / index) or b"")["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            shards = {f"what {index} names"}
        yield from sorted(map(str, shards - there))
    elif not there.intersection(_WEIGHTS):
        yield "the weights' file"
    yield from (name for name in _RESUMED if name not in there)
    if not any(name.startswith("rng_state") for name in there):
        yield "rng_state.pth"
