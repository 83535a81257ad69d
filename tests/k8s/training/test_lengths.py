"""What is said of the base model's context before a run is submitted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from k8s.training import lengths
from lockfiles import store
from lockfiles.models.lockfile import PinnedFile, PinnedModel
from tests.k8s.conftest import REPO, Checkout


def base(tmp_path: Path, text: str, *, in_store: bool = True) -> PinnedModel:
    """A base model with this `config.json`."""
    data = text.encode()
    file = PinnedFile("config.json", len(data), hashlib.sha256(data).hexdigest())
    if in_store:
        (tmp_path / "given").write_bytes(data)
        store.add_file(file.artifact, tmp_path / "given")
    return PinnedModel("tiny", "maker/tiny-base", "main", "c0ffee" * 6 + "c0ff", "sha256:1", (file,))


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINWHEEL_CACHE", str(tmp_path / "cache"))


def said(capsys: pytest.CaptureFixture[str], model: PinnedModel, config: dict[str, Any], serves: int | None = 8192) -> str:
    lengths.tell(model, config, serves)
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


SHORT = json.dumps({"max_position_embeddings": 512})


def test_a_context_that_is_shorter_than_what_is_served_is_said_with_what_will_happen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = said(capsys, base(tmp_path, SHORT), {"cutoff_len": 512})
    assert told.endswith("tiny takes 512 tokens, the set serves with vllm_maxlen: 8192 the model will be served with 512")


@pytest.mark.parametrize(
    ("config", "what"), [({"cutoff_len": 513}, "cutoff_len: 513 is"), ({}, "cutoff_len: 2048, LLaMA-Factory's default, is")]
)
def test_rows_longer_than_the_context_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: dict[str, Any], what: str
) -> None:
    told = said(capsys, base(tmp_path, SHORT), config, None)
    assert f"{what} more than the 512 tokens that tiny takes" in told
    assert told.endswith("write cutoff_len: 512")


@pytest.mark.parametrize(
    ("text", "config", "serves", "in_store"),
    [
        (SHORT, {"cutoff_len": 512}, 512, True),
        (SHORT, {"cutoff_len": 512}, None, True),
        (SHORT, {}, 8192, False),
        (SHORT, {"rope_scaling": "yarn"}, 8192, True),
        ("{}", {}, 8192, True),
        ("[" * 100_000, {}, 8192, True),
    ],
)
def test_nothing_is_said_where_it_fits_or_is_not_known(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    config: dict[str, Any],
    serves: int | None,
    in_store: bool,
) -> None:
    model = base(tmp_path, text, in_store=in_store)
    assert said(capsys, model, config, serves) == ""


def test_what_the_set_serves_with_is_read_from_its_manifests(checkout: Checkout) -> None:
    checkout.edit("configmap.yaml", "vllm_maxlen: 8192", "vllm_maxlen: 4096")
    assert lengths.served(checkout.check()[0].objects) == 4096
    (checkout.manifests / "inference" / "deployment.yaml").write_text(
        (REPO / "examples" / "vllm-serve" / "deployment.yaml").read_text()
    )
    assert lengths.served(checkout.check()[0].objects) is None
