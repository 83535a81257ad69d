"""What stands before a training: torn checkpoints set aside, the parser once more, and then the command in its own process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.k8s.pipeline import factory
from tests.k8s.pipeline.conftest import Run, program
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.slow


def train(run: Run, tmp_path: Path, *command: str, refused: str = "") -> tuple[int, str]:
    if refused:
        (run.config / "train.yaml").write_text(f"refused: {refused}\n")
    env = {"PYTHONPATH": str(factory.write(tmp_path / "packages"))}
    argv = ["--config", str(run.config), f"--workdir={tmp_path}", "--", *command]
    with program("train", *argv, env=env) as process:
        said, _ = process.communicate(timeout=LIMIT_S)
    return process.returncode, said


def test_the_command_takes_the_place_of_the_program(run: Run, tmp_path: Path) -> None:
    code, said = train(run, tmp_path, "sh", "-c", "pwd; echo ${LLAMAFACTORY_VERBOSITY-unset}; exit 7")
    assert code == 7
    assert said.splitlines()[-2:] == [str(tmp_path), "unset"]


def test_a_refused_configuration_has_a_code_of_its_own_and_nothing_is_started(run: Run, tmp_path: Path) -> None:
    code, said = train(run, tmp_path, "sh", "-c", "echo started", refused="never")
    assert code == 2
    assert "refuses the configuration: never" in said
    assert "started" not in said


def test_a_checkpoint_that_was_being_written_is_not_met_again(run: Run, tmp_path: Path) -> None:
    run.put("output/checkpoint-600/adapter_model.safetensors", b"\x10")
    code, said = train(run, tmp_path, "ls", str(run.path("output")))
    assert code == 0
    assert "checkpoint-600 is torn (trainer_state.json is missing): set aside as torn-checkpoint-600\n" in said
    assert "\ncheckpoint-600\n" not in said


@pytest.mark.parametrize("argv", [[], ["--"], ["llamafactory-cli"]])
def test_a_call_without_a_command_is_refused(argv: list[str]) -> None:
    with program("train", *argv) as process:
        process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2
