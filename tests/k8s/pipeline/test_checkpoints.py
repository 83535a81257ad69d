"""A training that was killed while it wrote a checkpoint: the torn folder is set aside, whatever is missing in it."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from k8s.pipeline import checkpoints
from tests.lockfiles.hub_server import tensors_file

WEIGHTS = tensors_file(**{"lora.weight": [float(n) for n in range(900)]})


def archive() -> bytes:
    """What torch.save writes, as far as its form goes."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as out:
        out.writestr("archive/data.pkl", b"x" * 500)
    return made.getvalue()


def whole(output: Path, step: int, **changes: bytes | None) -> Path:
    """A checkpoint as transformers leaves it; `changes` by name, with `_` for `.`: other bytes, or None for no such file."""
    files: dict[str, bytes | None] = {
        "adapter_config.json": b"{}",
        "adapter_model.safetensors": WEIGHTS,
        "optimizer.pt": archive(),
        "scheduler.pt": archive(),
        "rng_state.pth": archive(),
        "training_args.bin": archive(),
        "trainer_state.json": json.dumps({"global_step": step}).encode(),
    }
    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name, data in {**files, **changes}.items():
        if data is not None:
            (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


def test_whole_checkpoints_stay(output: Path) -> None:
    for step in (200, 400):
        whole(output, step)
    (output / "checkpoint-best").mkdir()
    (output / "trainer_log.jsonl").write_text("")
    assert checkpoints.set_aside(output) == []
    assert sorted(one.name for one in output.iterdir()) == [
        "checkpoint-200",
        "checkpoint-400",
        "checkpoint-best",
        "trainer_log.jsonl",
    ]


def test_a_training_that_wrote_nothing_yet_is_no_fault(output: Path) -> None:
    assert checkpoints.set_aside(output / "absent") == []


# What `_save_checkpoint` writes, in its order: a kill leaves the first of them and a part of the next.
ORDER = ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]


@pytest.mark.parametrize("name", ORDER)
def test_a_checkpoint_that_lacks_a_file_is_set_aside(output: Path, name: str) -> None:
    whole(output, 200)
    whole(output, 400, **{name: None})
    (line,) = checkpoints.set_aside(output)
    wanted = "the weights' file" if name.startswith("adapter") else name
    assert line == f"checkpoint-400 is torn ({wanted} is missing): set aside as torn-checkpoint-400"
    assert sorted(one.name for one in output.iterdir()) == ["checkpoint-200", "torn-checkpoint-400"]


@pytest.mark.parametrize("name", [*ORDER, "training_args.bin"])
@pytest.mark.parametrize("left", [0, 30, -1])
def test_a_checkpoint_with_a_file_that_is_cut_short_is_set_aside(output: Path, name: str, left: int) -> None:
    data = (whole(output, 1) / name).read_bytes()
    whole(output, 400, **{name: data[:left] if left < len(data) else data[:5]})
    (line,) = checkpoints.set_aside(output)
    # A state that lacks its last byte, the closing brace, is as torn as an empty one.
    assert line == f"checkpoint-400 is torn ({name} is cut short): set aside as torn-checkpoint-400"


@pytest.mark.parametrize("kept", range(len(ORDER)))
def test_a_kill_at_any_moment_of_writing_is_found(output: Path, kept: int) -> None:
    whole(output, 400, **dict.fromkeys(ORDER[kept:]))
    assert len(checkpoints.set_aside(output)) == 1


def test_a_model_in_shards_needs_all_of_them(output: Path) -> None:
    shards = {"model-00001-of-00002.safetensors": WEIGHTS, "model-00002-of-00002.safetensors": WEIGHTS}
    index = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})
    names = {"adapter_model.safetensors": None, "model.safetensors.index.json": index.encode()}
    whole(output, 200, **names, **shards)
    assert checkpoints.set_aside(output) == []
    whole(output, 400, **names, **{**shards, "model-00002-of-00002.safetensors": None})
    (line,) = checkpoints.set_aside(output)
    assert "model-00002-of-00002.safetensors is missing" in line


def test_shards_without_their_index_are_no_model(output: Path) -> None:
    whole(output, 400, **{"adapter_model.safetensors": None, "model-00001-of-00002.safetensors": WEIGHTS})
    assert len(checkpoints.set_aside(output)) == 1


def test_only_the_last_torn_ones_are_kept(output: Path) -> None:
    for step in (200, 400):
        whole(output, step, **{"trainer_state.json": None})
        checkpoints.set_aside(output)
        # The same step is torn a second time.
        whole(output, step, **{"optimizer.pt": None})
        assert len(checkpoints.set_aside(output)) == 1
    assert [one.name for one in output.iterdir()] == ["torn-checkpoint-400"]
    assert not (output / "torn-checkpoint-400" / "optimizer.pt").exists()
