"""LLaMA-Factory's own parser on this machine, before anything is sent. The engine is a stand-in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker.errors
import pytest
import requests

from common import host
from common.errors import MissingEnvironmentError, UsageError
from k8s.training import parser
from k8s.training.runs import Paths, Run
from oci.reference import ImageRef

IMAGE = ImageRef.parse("registry.example.com/llm/llama-factory-train").pin("sha256:" + "1" * 64)
RUN = Run(
    version="sft-0123456789ab",
    experiment="experiments/example/tiny/sft.yaml",
    source="1234",
    model="registry.example.com/llm/models/example-tiny",
    dataset="registry.example.com/llm/datasets/example-tiny@sha256:" + "2" * 64,
    template="qwen3_nothink",
    train_image=str(IMAGE),
    base_repository="registry.example.com/llm/models/base/tiny",
    paths=Paths("/work/base", "/work/data", "/work/output", "/work/export", "/work/logs"),
    train="stage: sft\n",
    export="export_size: 5\n",
    base="{}\n",
    gpus=1,
)
REFUSAL = (
    b"noise of a library\ncheck: LLaMA-Factory refuses the configuration: never (/config/train.yaml): mend the experiment\n"
)


class Engine:
    """An engine with one container, which ends as it is told."""

    def __init__(self, code: int = 0, errors: bytes = b"", problem: Callable[[], Exception] | None = None) -> None:
        self.containers = self
        self.code, self.errors, self.problem = code, errors, problem
        self.asked: dict[str, Any] = {}
        self.config: dict[str, str] = {}
        self.removed = self.closed = False

    def create(self, image: str, command: list[str], **options: Any) -> Engine:
        if self.problem and not isinstance(self.problem(), requests.RequestException):
            raise self.problem()
        self.asked = {"image": image, "command": command, **options}
        (mount,) = options["mounts"]
        assert mount["ReadOnly"]
        self.config = {file.name: file.read_text() for file in Path(mount["Source"]).iterdir()}
        return self

    def start(self) -> None: ...

    def wait(self, timeout: float) -> dict[str, int]:
        assert timeout > 0
        if self.problem:
            raise self.problem()
        return {"StatusCode": self.code}

    def logs(self, *, stdout: bool) -> bytes:
        assert not stdout
        return self.errors

    def remove(self, *, force: bool) -> None:
        assert force
        self.removed = True

    def close(self) -> None:
        self.closed = True


def ask(engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(host, "engine", lambda: engine)
    parser.ask(RUN, IMAGE)
    return " ".join(capsys.readouterr().out.split())


def test_the_runs_own_files_are_judged_in_the_image_of_the_lock_without_a_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = Engine()
    assert "LLaMA-Factory takes the configuration" in ask(engine, monkeypatch, capsys)
    assert engine.config == RUN.files()
    assert engine.asked["image"] == IMAGE.digest
    assert (engine.asked["network_mode"], engine.asked["read_only"]) == ("none", True)
    assert engine.asked["cap_drop"] == ["ALL"]
    assert engine.removed
    assert engine.closed


def test_a_refusal_ends_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    engine = Engine(2, REFUSAL)
    with pytest.raises(UsageError) as caught:
        ask(engine, monkeypatch, capsys)
    assert caught.value.line() == (
        "LLaMA-Factory refuses the configuration: never (/config/train.yaml): mend the experiment"
        " (experiments/example/tiny/sft.yaml): nothing was sent"
    )
    assert engine.removed


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (Engine(1, b"No module named pinwheel_pipeline.check\n"), "No module named pinwheel_pipeline.check"),
        (Engine(137), "code 137"),
        (Engine(problem=lambda: docker.errors.ImageNotFound("no")), "the engine has not the train image"),
        (Engine(problem=lambda: docker.errors.APIError("no such folder")), "the engine does not run it: APIError"),
        (Engine(problem=requests.ReadTimeout), "the engine does not run it: ReadTimeout"),
    ],
)
def test_where_it_cannot_be_asked_that_is_said_and_nothing_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], engine: Engine, why: str
) -> None:
    said = ask(engine, monkeypatch, capsys)
    assert said == f"not checked here whether LLaMA-Factory takes the configuration: {why}"
    assert engine.closed
    assert engine.removed == bool(engine.asked)


def test_a_machine_without_an_engine_checks_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none() -> None:
        raise MissingEnvironmentError("no Docker Engine answers", where="unix:///x", fix="install one")

    monkeypatch.setattr(host, "engine", none)
    parser.ask(RUN, IMAGE)
    assert "takes the configuration: no Docker Engine answers" in " ".join(capsys.readouterr().out.split())
