"""A model goes from the training's export into the registry, and from there into a pod: the same bytes, or none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from common.errors import ExitCode, PinwheelError
from common.files import sha256_bytes
from k8s.pipeline import artifact
from tests.k8s.pipeline.conftest import VERSION, Run, model_files
from tests.oci.double import Double

# Each registers and fetches a whole model.
pytestmark = pytest.mark.slow

REPOSITORY = "models/team-tiny"


def manifest(double: Double, reference: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(double.manifests[REPOSITORY][reference.rpartition("@")[2]][1])
    return found


def test_what_was_exported_is_what_is_served(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = run.fetch(run.register(), monkeypatch)
    found = {str(one.relative_to(volume / "current")): one.read_bytes() for one in (volume / "current").rglob("*")}
    assert found == model_files()
    assert yaml.safe_load((volume / "inference.yaml").read_text()) == {
        "infer_backend": "vllm",
        "trust_remote_code": False,
        "model_name_or_path": str(volume / "current"),
        "template": "qwen3_nothink",
    }
    assert not list(volume.glob(".*"))


def checked(run: Run, model: str, monkeypatch: pytest.MonkeyPatch, key: str = "own") -> None:
    """In a preflight nothing of the model comes onto the volume, whatever is found out."""
    monkeypatch.setenv("MODEL_DOWNLOAD", "no")
    (run.root / "models").mkdir()
    try:
        run.fetch(model, monkeypatch, key)
    finally:
        assert not list((run.root / "models").iterdir())


def test_a_preflight_fetches_no_file(run: Run, double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    model = run.register()
    before = len(double.asked)
    checked(run, model, monkeypatch)
    asked = {(one.method, one.path.rpartition("/")[2]) for one in double.asked[before:] if "/blobs/" in one.path}
    weights = {one["digest"] for one in manifest(double, model)["layers"] if "weight" in one["mediaType"]}  # type: ignore[attr-defined]
    assert {digest for method, digest in asked if method == "HEAD"} == weights
    assert not weights & {digest for method, digest in asked if method == "GET"}


def test_a_preflight_refuses_another_signature(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PinwheelError, match="no signature of it is by the key") as problem:
        checked(run, run.register("other"), monkeypatch)
    assert problem.value.exit_code == ExitCode.POLICY


def test_a_preflight_misses_a_file_that_the_registry_lost(run: Run, double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    model = run.register()
    del double.blobs[REPOSITORY][sha256_bytes(model_files()["model-00001-of-00002.safetensors"])]
    with pytest.raises(PinwheelError, match="the registry lacks model-00001-of-00002.safetensors") as problem:
        checked(run, model, monkeypatch)
    assert problem.value.exit_code == ExitCode.REGISTRY


def test_a_preflight_refuses_a_configuration_that_contradicts_the_model(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.settings.write_text("template: llama3\n")
    with pytest.raises(PinwheelError, match="says template: llama3, the model's is qwen3_nothink"):
        checked(run, run.register(), monkeypatch)


def test_the_same_export_has_the_same_digest_and_is_pushed_once(run: Run, double: Double) -> None:
    first = run.register()
    puts = double.count("PUT", "/blobs/")
    assert run.register() == first
    assert double.count("PUT", "/blobs/") == puts
    # One signature too, although each signing of the kind gives another one.
    tag = first.rpartition("@")[2].replace(":", "-") + ".sig"
    assert len(json.loads(double.manifests[REPOSITORY][tag][1])["layers"]) == 1


def test_the_tag_is_the_version_and_comes_after_the_signature(run: Run, double: Double) -> None:
    model = run.register()
    assert sha256_bytes(double.manifests[REPOSITORY][VERSION][1]) == model.rpartition("@")[2]
    puts = [one.path.rpartition("/")[2] for one in double.asked if one.method == "PUT" and "/manifests/" in one.path]
    assert puts[-1] == VERSION
    assert puts[-2].endswith(".sig")


def test_the_artifact_is_a_modelpack(run: Run, double: Double) -> None:
    body = manifest(double, run.register())
    assert body["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    described = body["config"]
    assert isinstance(described, dict)
    config = json.loads(double.blobs[REPOSITORY][described["digest"]])
    layers = body["layers"]
    assert isinstance(layers, list)
    assert config["modelfs"] == {"type": "layers", "diffIds": [one["digest"] for one in layers]}
    assert config["config"] == {
        "architecture": "transformer",
        "format": "safetensors",
        "paramSize": "1.5k",
        "precision": "fp32",
    }
    assert config["descriptor"] == {
        "name": "team-tiny",
        "version": VERSION,
        "revision": "a" * 40,
        "licenses": ["apache-2.0"],
    }
    kinds = {one["annotations"]["org.cncf.model.filepath"]: one["mediaType"].split(".model.")[1] for one in layers}
    assert kinds["model-00001-of-00002.safetensors"] == "weight.v1.raw"
    assert kinds["tokenizer.json"] == "weight.config.v1.raw"
    assert kinds["README.md"] == kinds["logs/train.log"] == kinds["training/run.json"] == "doc.v1.raw"
    assert kinds["training/dataset_info.json"] == "doc.v1.raw"
    # The log of the step that registers is still being written.
    assert "logs/register.log" not in kinds


def card(run: Run, double: Double) -> str:
    """The card that is registered with the model."""
    layers = manifest(double, run.register())["layers"]
    assert isinstance(layers, list)
    (digest,) = [one["digest"] for one in layers if one["annotations"][artifact.FILEPATH] == "README.md"]
    return double.blobs[REPOSITORY][digest].decode()


def test_the_card_names_everything_the_model_was_made_of(run: Run, double: Double) -> None:
    text = card(run, double)
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["base_model"] == "team/tiny"
    assert front["license"] == "apache-2.0"
    lock = sha256_bytes((run.config / "base-model.json").read_bytes())
    for part in (
        run.commit,
        lock,
        f"datasets/team-tiny@{run.dataset}",
        "llama-factory-train@sha256:" + "1" * 64,
        "experiments/team/tiny/sft.yaml",
        "a" * 40,
        "| last_loss | 0.125 |",
        "| train_loss | 0.25 |",
        "    finetuning_type: lora",
    ):
        assert part in text, part


def test_the_card_of_a_model_whose_base_is_on_no_hub_names_none(run: Run, double: Double) -> None:
    run.repo, run.commit = "", "c" * 64
    text = card(run.write(), double)
    assert "base_model" not in yaml.safe_load(text.split("---\n")[1])
    assert f"| base model | tiny at revision {run.commit} |" in text


SECOND = "model-00002-of-00002.safetensors"
WRONG = {
    "an adapter": ({"adapter_config.json": b"{}"}, "an adapter, not a model: export it first"),
    "a pickle": ({"pytorch_model.bin": b"x"}, "pytorch_model.bin.*a pickle"),
    "training arguments, a pickle": ({"training_args.bin": b"x"}, "training_args.bin"),
    "code": ({"modeling_tiny.py": b"x"}, "modeling_tiny.py.*code"),
    "a pickle under a good name": ({"model-00001-of-00002.safetensors": b"\x80\x04" + b"x" * 90}, "it is a pickle"),
    "a shard left over": ({"model-00003-of-00003.safetensors": model_files()["model-00001-of-00002.safetensors"]}, "left over"),
    "a hidden file": ({".cache/x.json": b"{}"}, "hidden"),
    "weights that are cut": ({SECOND: model_files()[SECOND][:-1]}, "lies at"),
    "an index that makes no sense": ({"model.safetensors.index.json": b"[]"}, "makes no sense"),
    "an index that names no such tensor": (
        {"model.safetensors.index.json": model_files()["model.safetensors.index.json"].replace(b"head", b"tail")},
        "lacks tensors",
    ),
}


@pytest.mark.parametrize(("files", "says"), WRONG.values(), ids=WRONG)
def test_an_export_that_is_no_whole_safe_model_is_refused(run: Run, double: Double, files: dict[str, bytes], says: str) -> None:
    for name, data in files.items():
        run.put(f"export/{name}", data)
    with pytest.raises(PinwheelError, match=says) as problem:
        run.register()
    assert problem.value.exit_code == ExitCode.POLICY
    assert not double.count("POST")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tokenizer.json", "no tokenizer"),
        ("tokenizer_config.json", "tokenizer_config"),
        ("config.json", "no config.json"),
        ("model-00002-of-00002.safetensors", "no model-00002"),
    ],
)
def test_an_export_without_what_a_loader_needs_is_refused(run: Run, name: str, says: str) -> None:
    run.path(f"export/{name}").unlink()
    with pytest.raises(PinwheelError, match=says):
        run.register()


@pytest.mark.parametrize("name", ["logs/train.log", "output/all_results.json", "dataset/dataset_info.json"])
def test_what_the_training_left_cannot_lead_to_the_key(run: Run, double: Double, name: str) -> None:
    # The step that trains never sees the key; the one that registers does, and reads what the training wrote.
    file = run.path(name)
    file.unlink(missing_ok=True)
    file.symlink_to(run.root / "own.key")
    with pytest.raises(PinwheelError, match=f"{file.name} is not a plain file: an earlier step") as problem:
        run.register()
    assert problem.value.exit_code == ExitCode.POLICY
    assert not double.blobs[REPOSITORY]


def test_a_pipe_among_the_logs_is_refused_and_not_waited_for(run: Run) -> None:
    run.path("logs/train.log").unlink()
    os.mkfifo(run.path("logs/train.log"))
    with pytest.raises(PinwheelError, match="train.log is not a plain file"):
        run.register()


def test_an_export_with_a_link_out_of_it_is_refused(run: Run) -> None:
    run.path("export/vocab.json").symlink_to("/etc/passwd")
    with pytest.raises(PinwheelError, match=r"'vocab.json': it is a link"):
        run.register()


@pytest.mark.parametrize("content", ["", "-----BEGIN EC PRIVATE KEY-----\nx\n"], ids=["empty", "broken"])
def test_a_key_that_cannot_sign_is_refused_before_anything_is_pushed(run: Run, double: Double, content: str) -> None:
    (run.root / "own.key").write_text(content)
    with pytest.raises(PinwheelError, match="not a private key without a passphrase"):
        run.register()
    assert not double.asked


def test_a_registry_that_takes_the_push_and_keeps_nothing_is_found_out(run: Run, double: Double) -> None:
    shard = sha256_bytes(model_files()["model-00001-of-00002.safetensors"])
    forget = double.manifests[REPOSITORY]

    class Forgetful(dict[str, tuple[str, bytes]]):
        def __setitem__(self, key: str, value: tuple[str, bytes]) -> None:
            super().__setitem__(key, value)
            if key == VERSION:
                del double.blobs[REPOSITORY][shard]

    double.manifests[REPOSITORY] = Forgetful(forget)
    with pytest.raises(PinwheelError, match="does not hold model-00001"):
        run.register()
    assert not (run.root / "model").exists()


def test_a_restarted_container_needs_no_registry(run: Run, double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    model = run.register()
    run.fetch(model, monkeypatch)
    double.asked.clear()
    run.settings.write_text("infer_backend: vllm\nvllm_maxlen: 4096\n")
    volume = run.fetch(model, monkeypatch)
    assert not double.asked
    assert "vllm_maxlen: 4096" in (volume / "inference.yaml").read_text()


def test_a_volume_with_another_model_is_replaced_whole(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = run.fetch(run.register(), monkeypatch)
    (volume / "current" / "modeling_evil.py").write_text("x")
    run.put("export/generation_config.json", b'{"temperature":0.5}')
    run.fetch(run.register(), monkeypatch)
    assert (volume / "current/generation_config.json").read_bytes() == b'{"temperature":0.5}'
    assert sorted(one.name for one in (volume / "current").iterdir()) == sorted(model_files())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("template: llama3\n", "says template: llama3, the model's is qwen3_nothink"),
        ("model_name_or_path: /elsewhere\n", "says model_name_or_path: /elsewhere"),
        ("adapter_name_or_path: /x\n", "sets adapter_name_or_path"),
        ("trust_remote_code: true\n", "sets trust_remote_code"),
        ("- x\n", "not a mapping of settings"),
        ("a: [\n", "cannot be read"),
    ],
)
def test_a_configuration_that_contradicts_the_model_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch, settings: str, says: str
) -> None:
    model = run.register()
    run.settings.write_text(settings)
    with pytest.raises(PinwheelError, match=says) as problem:
        run.fetch(model, monkeypatch)
    assert problem.value.exit_code == ExitCode.USAGE
    assert not (run.root / "models/inference.yaml").exists()


@pytest.mark.parametrize("model", ["", "team/tiny@sha256:" + "a" * 64, "host.example/x:tag", "host.example/x"])
def test_a_reference_that_names_no_content_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    with pytest.raises(PinwheelError, match="names no model yet|not a reference of the form"):
        run.fetch(model, monkeypatch)


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(
    run: Run, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = run.register()
    double.asked.clear()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(PinwheelError, match="make the volume larger") as problem:
        run.fetch(model, monkeypatch)
    assert problem.value.exit_code == ExitCode.ENVIRONMENT
    weights = sha256_bytes(model_files()["model-00001-of-00002.safetensors"])
    assert not double.count("GET", weights)
    assert not Path(run.root / "models/current").exists()
