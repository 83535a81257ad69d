"""From an experiment to what the pods read: the same inputs, the same version; a changed byte, another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.errors import BuildError, RegistryError
from common.run import run as call
from k8s.pipeline import download, experiment
from k8s.training import artifact, runs
from k8s.training.artifact import FileArtifact
from k8s.training.runs import Run
from lockfiles.models.lockfile import PinnedFile, PinnedModel
from oci.reference import ImageRef
from tests.k8s.training.conftest import BASE, Lab
from tests.oci.conftest import QUICK
from tests.oci.real import RealRegistry

pytestmark = pytest.mark.host

REGISTRY = "registry.example.com/llm"
IMAGE = ImageRef.parse(f"{REGISTRY}/llama-factory-train").pin("sha256:" + "b" * 64)


def made(lab: Lab, image: ImageRef = IMAGE, source: str = "1234", registry: str = REGISTRY) -> Run:
    one = lab.read()
    return runs.of_experiment(one, artifact.of_dataset(one.dataset, one.name, registry), registry, image, source)


def test_the_same_inputs_have_the_same_version_whatever_the_checkout_and_registry(lab: Lab) -> None:
    first = made(lab)
    assert first.version.startswith("sft-")
    assert len(first.version) == len("sft-") + 12
    assert made(lab) == first
    assert made(lab, source="5678-dirty", registry="other.example.com").version == first.version


def _comment(lab: Lab) -> None:
    lab.file.write_text(lab.file.read_text() + "# note\n")


def _row(lab: Lab) -> None:
    file = lab.data / "questions.json"
    file.write_text(file.read_text().replace("Content", "content"))


def _commit(lab: Lab) -> None:
    lab.lock(PinnedModel(BASE.name, BASE.repo, BASE.revision, "d" * 40, BASE.inputs, BASE.files))


def _base_file(lab: Lab) -> None:
    files = (PinnedFile("config.json", 2, "e" * 64),)
    lab.lock(PinnedModel(BASE.name, BASE.repo, BASE.revision, BASE.commit, BASE.inputs, files))


def _key(lab: Lab) -> None:
    lab.say(seed=21)


@pytest.mark.parametrize("change", [_comment, _row, _commit, _base_file, _key])
def test_a_changed_byte_is_another_version(change: Callable[[Lab], None], lab: Lab) -> None:
    before = made(lab).version
    change(lab)
    assert made(lab).version != before


def test_another_train_image_is_another_version(lab: Lab) -> None:
    assert made(lab).version != made(lab, IMAGE.pin("sha256:" + "c" * 64)).version


def test_an_unused_dataset_changes_nothing(lab: Lab) -> None:
    before = made(lab)
    info = json.loads((lab.data / "dataset_info.json").read_text())
    (lab.data / "dataset_info.json").write_text(json.dumps({**info, "other": {"file_name": "other.json"}}))
    assert made(lab) == before


def test_the_training_goes_where_the_platform_says_and_can_be_resumed(lab: Lab) -> None:
    one = made(lab)
    config = dict(line.split(": ", 1) for line in one.train.splitlines() if ": " in line)
    assert config["model_name_or_path"] == f"/work/models/tiny-{BASE.commit[:12]}"
    assert config["output_dir"] == f"/work/runs/{one.version}/output"
    assert config["dataset_dir"].startswith("/work/datasets/")
    assert (config["overwrite_output_dir"], config["save_only_model"], config["report_to"]) == ("false", "false", "none")
    # The experiment's own where it says something, a default where not.
    assert (config["save_strategy"], config["save_total_limit"], config["learning_rate"]) == ("steps", "2", "0.004")
    assert list(config) == sorted(config)


def test_an_adapter_is_merged_and_a_whole_model_written_anew(lab: Lab) -> None:
    lora = made(lab)
    assert f"adapter_name_or_path: /work/runs/{lora.version}/output\n" in lora.export
    assert f"model_name_or_path: /work/models/tiny-{BASE.commit[:12]}\n" in lora.export
    lab.say(finetuning_type="full", lora_rank=None, lora_alpha=None, lora_target=None)
    full = made(lab)
    assert "adapter_name_or_path" not in full.export
    assert f"model_name_or_path: /work/runs/{full.version}/output\n" in full.export
    assert f"export_dir: /work/runs/{full.version}/export\n" in full.export


def test_what_the_tokenizer_was_made_of_is_said_to_the_export_too(lab: Lab) -> None:
    lab.say(default_system="Be brief.", resize_vocab=True)
    assert 'default_system: "Be brief."\n' in made(lab).export
    assert "resize_vocab: true\n" in made(lab).export


def test_the_pods_read_what_is_written_for_them(lab: Lab, tmp_path: Path) -> None:
    one = made(lab)
    for name, text in one.files().items():
        (tmp_path / name).write_text(text)
    run, base = experiment.read_run(tmp_path), experiment.read_base(tmp_path)
    assert (run.version, str(run.dataset), str(run.output)) == (one.version, one.dataset, one.paths.output)
    assert (base.repo, base.revision, [file.path for file in base.files]) == (BASE.repo, BASE.commit, ["config.json"])


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealRegistry]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    one = RealRegistry(tmp_path / "registry")
    one.start()
    yield one
    one.stop()


def pushed(lab: Lab, registry: RealRegistry) -> FileArtifact:
    one = lab.read()
    found = artifact.of_dataset(one.dataset, one.name, f"{registry.address}/llm")
    artifact.push(found, QUICK)
    return found


def test_a_dataset_is_pushed_by_digest_and_the_pods_pull_the_same_files(
    lab: Lab, registry: RealRegistry, tmp_path: Path
) -> None:
    (lab.data / "a.png").write_bytes(b"png")
    lab.info(columns={"prompt": "instruction", "response": "output", "images": "pictures"})
    lab.rows({"instruction": "<image>a", "output": "b", "pictures": ["a.png"]})
    lab.say(template="qwen2_vl")
    found = pushed(lab, registry)
    assert found.reference.repository == "llm/datasets/example-tiny"
    download.dataset(ImageRef.in_registry(str(found.reference), pinned=True), tmp_path / "pulled")
    got = {str(file.relative_to(tmp_path / "pulled")): file.read_bytes() for file in (tmp_path / "pulled").rglob("*")}
    assert got.keys() == {"a.png", "dataset_info.json", "questions.json"}
    assert got["questions.json"] == (lab.data / "questions.json").read_bytes()
    assert got["a.png"] == b"png"
    assert list(json.loads(got["dataset_info.json"])) == ["questions"]


def test_another_client_reads_the_dataset_and_a_second_push_sends_nothing(
    lab: Lab, registry: RealRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    found = pushed(lab, registry)
    said = call(["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{found.reference}"])
    assert said.stdout.encode() == found.manifest
    assert json.loads(said.stdout)["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    capsys.readouterr()
    assert pushed(lab, registry).reference == found.reference
    assert "0 B sent" in capsys.readouterr().out


def test_a_file_that_changes_between_check_and_push_is_refused(lab: Lab, registry: RealRegistry) -> None:
    one = lab.read()
    file = lab.data / "questions.json"
    file.write_text(file.read_text().replace("Content", "content"))
    found = artifact.of_dataset(one.dataset, one.name, f"{registry.address}/llm")
    with pytest.raises(BuildError, match=r"questions\.json.* was altered"):
        artifact.push(found, QUICK)


def test_a_model_that_is_there_is_found_by_its_version(lab: Lab, registry: RealRegistry) -> None:
    assert artifact.model_reference(f"{registry.address}/llm", "example-tiny", "sft-1", QUICK) == ""
    registry.stop()
    with pytest.raises(RegistryError):
        artifact.model_reference(f"{registry.address}/llm", "example-tiny", "sft-1", QUICK)
