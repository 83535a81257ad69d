"""LLaMA-Factory's own parser as the first step: its refusal is one line, and what only the machine lacks does not count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from common.errors import ExitCode, UsageError
from k8s.pipeline import check
from tests.k8s.pipeline import factory
from tests.k8s.pipeline.conftest import program
from tests.waiting import LIMIT_S

FILE = Path("/config/train.yaml")


def parser(*refusals: tuple[str, str]) -> check.Parse:
    """Refuses a key that is there, with words."""

    def parse(config: dict[str, Any]) -> None:
        for key, words in refusals:
            if config.get(key):
                raise ValueError(words)

    return parse


BF16 = ("bf16", "Your setup doesn't support bf16/gpu. You need to assign use_cpu if you want to train on CPU.")
PURE = ("pure_bf16", "This device does not support `pure_bf16`.")
TF32 = ("tf32", "--tf32 requires Ampere or a newer GPU arch, cuda>=11 and torch>=1.7")


@pytest.mark.parametrize("refusal", [BF16, PURE, TF32])
def test_what_only_the_machine_lacks_does_not_count_where_the_training_has_it(refusal: tuple[str, str]) -> None:
    config = {refusal[0]: True, "stage": "sft"}
    (line,) = check.judge(config, parser(refusal), FILE, excused=True)
    assert line.startswith(f"{refusal[0]}: not judged here, there is no GPU: ")
    with pytest.raises(UsageError, match=r"refuses the configuration: .*\(/config/train.yaml\)"):
        check.judge(config, parser(refusal), FILE, excused=False)


def test_another_refusal_does_not_hide_behind_one_of_the_machine() -> None:
    with pytest.raises(UsageError, match="no such key: nonsense"):
        check.judge({"bf16": True, "nonsense": 1}, parser(BF16, ("nonsense", "no such key: nonsense")), FILE, excused=True)


def test_words_of_the_machine_about_a_key_that_is_not_there_are_a_refusal() -> None:
    def parse(config: dict[str, Any]) -> None:
        raise ValueError(BF16[1])

    with pytest.raises(UsageError, match="doesn't support bf16"):
        check.judge({"stage": "sft"}, parse, FILE, excused=True)


def test_a_refusal_is_one_line_and_not_a_page() -> None:
    with pytest.raises(UsageError) as caught:
        check.judge({"x": 1}, parser(("x", "bad\nkeys\n" + "k, " * 9_000)), FILE, excused=True)
    assert "\n" not in caught.value.line()
    assert len(caught.value.line()) < 800


def run(tmp_path: Path, train: dict[str, Any], export: dict[str, Any] | None = None, *, gpu: bool = False) -> tuple[int, str]:
    """The program as it is shipped, beside a stand-in for LLaMA-Factory."""
    config = tmp_path / "config"
    config.mkdir()
    (config / "train.yaml").write_text(yaml.safe_dump(train))
    (config / "export.yaml").write_text(yaml.safe_dump(export or {"export_size": 5}))
    env = {"PYTHONPATH": str(factory.write(tmp_path / "packages", gpu=gpu))}
    with program("check", "--config", str(config), env=env) as process:
        said, _ = process.communicate(timeout=LIMIT_S)
    return process.returncode, said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("train", "gpu", "code", "says"),
    [
        ({"stage": "sft"}, False, 0, "LLaMA-Factory takes the configurations"),
        ({"bf16": True}, False, 0, "bf16: not judged here"),
        ({"bf16": True}, True, 0, "LLaMA-Factory takes the configurations"),
        ({"refused": "never"}, False, 2, "check: LLaMA-Factory refuses the configuration: never ("),
        ({"bf16": True, "refused": "never"}, False, 2, "refuses the configuration: never ("),
        # A training on the CPU has no more than this step.
        ({"tf32": True, "use_cpu": True}, False, 2, "--tf32 requires Ampere"),
    ],
)
def test_the_program_ends_as_the_parser_says(tmp_path: Path, train: dict[str, Any], gpu: bool, code: int, says: str) -> None:
    ended, said = run(tmp_path, train, gpu=gpu)
    assert ended == code, said
    assert says in said.splitlines()[-1 if code else 0]


@pytest.mark.slow
def test_the_configuration_of_the_export_is_judged_as_well(tmp_path: Path) -> None:
    code, said = run(tmp_path, {"stage": "sft"}, {"refused": "no export"})
    assert code == 2
    assert "no export" in said
    assert "export.yaml" in said


@pytest.mark.slow
def test_without_llama_factory_it_says_where_to_run(tmp_path: Path) -> None:
    with program("check", "--config", str(tmp_path)) as process:
        said, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == ExitCode.ENVIRONMENT
    assert said.startswith("check: there is no LLaMA-Factory here")
    assert len(said.splitlines()) == 1
