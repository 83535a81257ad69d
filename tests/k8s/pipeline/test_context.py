"""How many tokens a model takes, as vLLM 0.28 counts it; compared with vLLM's own answer in the api image for each of these."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.pipeline import context
from tests.k8s.pipeline.conftest import Run, model_files

BASE = {"max_position_embeddings": 512}


def rope(**keys: Any) -> dict[str, Any]:
    return {**BASE, "rope_scaling": keys}


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        (BASE, 512),
        ({**BASE, "max_seq_len": 300}, 300),
        ({**BASE, "model_max_length": 3000}, 3000),
        (rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=256), 1024),
        (rope(type="yarn", factor=4.0), 2048),
        ({**rope(rope_type="yarn", factor=4.0), "original_max_position_embeddings": 200}, 800),
        (rope(type="linear", factor=2.0), 1024),
        (rope(rope_type="llama3", factor=8.0, original_max_position_embeddings=128), 512),
        (rope(type="su", factor=8.0), 512),
        ({**BASE, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 512),
        ({**BASE, "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2}}}, 1024),
        ({**rope(type="linear", factor=8.0), "model_type": "gemma3_text"}, 512),
        ({"max_position_embeddings": 9, "text_config": {"max_position_embeddings": 512}}, 512),
    ],
)
def test_the_context_is_what_vllm_derives(config: dict[str, Any], tokens: int) -> None:
    assert context.length(config) == tokens


@pytest.mark.parametrize(
    "config",
    [{}, {"max_position_embeddings": None}, {"max_position_embeddings": True}, {"text_config": {}}, {"text_config": 3}],
)
def test_what_the_file_does_not_say_is_not_guessed(config: dict[str, Any]) -> None:
    assert context.length(config) is None


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, "\xff"])
def test_a_file_that_is_no_configuration_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    assert context.read(tmp_path / "config.json") is None
    assert context.read(tmp_path / "absent.json") is None


# --- in the pod that serves ---


def served(run: Run, monkeypatch: pytest.MonkeyPatch, settings: str, **config: Any) -> dict[str, Any]:
    body = json.loads(model_files()["config.json"])
    run.export({**model_files(), "config.json": json.dumps({**body, **config}).encode()})
    run.settings.write_text(settings)
    settings_there: dict[str, Any] = yaml.safe_load((run.fetch(run.register(), monkeypatch) / "inference.yaml").read_text())
    return settings_there


@pytest.mark.parametrize(("settings", "told"), [("vllm_maxlen: 8192\n", "512 in place of 8192"), ("", "512 in place of 4096")])
def test_a_server_is_not_asked_for_more_tokens_than_its_model_takes(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: str, told: str
) -> None:
    there = served(run, monkeypatch, f"infer_backend: vllm\n{settings}", max_position_embeddings=512)
    assert there["vllm_maxlen"] == 512
    assert f"vllm_maxlen: {told}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "config"),
    [
        ("infer_backend: vllm\nvllm_maxlen: 400\n", BASE),
        ("infer_backend: vllm\nvllm_maxlen: 8192\n", {}),
        ("infer_backend: vllm\nvllm_maxlen: 1024\n", rope(type="linear", factor=2.0)),
        ("infer_backend: huggingface\nvllm_maxlen: 8192\n", BASE),
    ],
)
def test_a_length_that_the_model_takes_is_left_as_it_is(
    run: Run, monkeypatch: pytest.MonkeyPatch, settings: str, config: dict[str, Any]
) -> None:
    there = served(run, monkeypatch, settings, **config)
    assert there["vllm_maxlen"] == yaml.safe_load(settings)["vllm_maxlen"]
