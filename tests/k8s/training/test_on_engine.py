"""The shipped example through the train image that was built: trained, resumed and exported by what `invoke train` writes.

The steps run as the WorkflowTemplate has them: its commands and programs, its user, a read-only root, no network.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker import DockerClient

from common import paths
from common.errors import UsageError
from common.files import sha256_bytes
from images import receipt as built
from k8s.training import artifact, experiment, parser, runs
from k8s.training.keys import Known
from k8s.training.runs import Run
from lockfiles.models import demonstration
from lockfiles.models import lockfile as models_lock
from lockfiles.models.lockfile import ModelsLock, PinnedFile, PinnedModel
from oci.reference import ImageRef
from smoke.boxes.session import Session
from smoke.machine import engine
from tests.k8s.training.conftest import EXAMPLE, Lab

# After the line, which builds the image.
pytestmark = pytest.mark.engine

ROOT = paths.ROOT
TEMPLATE: Any = yaml.safe_load((ROOT / "k8s/manifests/training/workflowtemplate.yaml").read_text())["spec"]
STEPS = {one["name"]: one["container"] for one in TEMPLATE["templates"] if "container" in one}
# What LLaMA-Factory takes, in its own words.
_TAKES = """
import dataclasses, json, sys
from llamafactory.hparams import parser
from llamafactory.data.template import TEMPLATES
fields = {field.name for one in parser._TRAIN_ARGS for field in dataclasses.fields(one) if field.init}
json.dump({"keys": sorted(fields), "templates": sorted(TEMPLATES)}, open("/work/takes.json", "w"))
"""
# What the exported model answers to the questions of a data set.
_ANSWERS = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
answers = []
for row in json.load(open(sys.argv[2])):
    chat = [{"role": "user", "content": row["instruction"]}]
    asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        told = model.generate(**asked, max_new_tokens=100, do_sample=False)
    answers.append(tokenizer.decode(told[0][asked["input_ids"].shape[1]:], skip_special_tokens=True))
json.dump(answers, open("/work/answers.json", "w"))
"""


@dataclass
class Pod:
    """The image, and the folders a pod of the workflow has."""

    client: DockerClient
    session: Session
    image: str
    work: Path
    config: Path

    def run(self, command: list[str], env: dict[str, str] | None = None, workdir: str = "/tmp") -> str:
        security = TEMPLATE["securityContext"]
        made = self.client.containers.run(
            self.image,
            command,
            detach=True,
            labels=self.session.labels,
            environment=env or {},
            working_dir=workdir,
            user=f"{security['runAsUser']}:{security['runAsGroup']}",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            network_mode="none",
            volumes={
                str(self.work): {"bind": "/work", "mode": "rw"},
                str(self.config): {"bind": "/config", "mode": "ro"},
                # The checkout's own programs, over those that the image holds.
                str(ROOT / "k8s" / "pipeline"): {"bind": "/opt/pinwheel/pinwheel_pipeline", "mode": "ro"},
                str(ROOT / "oci"): {"bind": "/opt/pinwheel/oci", "mode": "ro"},
            },
            tmpfs={"/tmp": "rw,nosuid,nodev,size=2g,mode=1777"},
            shm_size=1 << 30,
        )
        code = made.wait(timeout=300)["StatusCode"]
        said: str = made.logs().decode(errors="replace")
        made.remove(force=True)
        assert code == 0, f"{command}: code {code}\n{said[-4000:]}"
        return said

    def step(self, name: str) -> str:
        """A step of the workflow, by its own command."""
        one = STEPS[name]
        env = {pair["name"]: pair["value"] for pair in one.get("env", ()) if "value" in pair}
        return self.run([*one["command"], *one["args"]], env, one["workingDir"])


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    found = engine.connect(gpu=False)
    (image,) = [one for one in built.read().images if one.role == "train"]
    engine.load(found, image, built.layout())
    folder = tmp_path_factory.mktemp("pod")
    work, config = folder / "work", folder / "config"
    for one in (work, config):
        one.mkdir()
        # The pod's user is another than ours.
        one.chmod(0o777)
    with Session(found.client) as session:
        yield Pod(found.client, session, image.digest, work, config)


@pytest.fixture(scope="module")
def run(pod: Pod, known: Known, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The example as it is shipped, its device's keys set for a CPU; on the volume what `download` leaves there."""
    content = demonstration.files()
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(EXAMPLE, root / "experiments" / "example" / "tiny")
    files = tuple(
        PinnedFile(path, len(data), sha256_bytes(data).removeprefix("sha256:")) for path, data in sorted(content.items())
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "ROOT", root)
        patch.setattr(paths, "LOCKFILES", root / "lockfiles")
        base = PinnedModel("tiny", "", "", models_lock.content(files), "sha256:1", files)
        models_lock.write_lock(ModelsLock("2026-01-02", (base,)))
        lab = Lab(root, known)
        lab.say(use_cpu=True, bf16=False)
        one = experiment.read(str(lab.file), known)
    image = ImageRef.parse("registry.example.com/llm/llama-factory-train").pin(pod.image)
    data = artifact.of_dataset(one.dataset, one.name, "registry.example.com/llm")
    made = runs.of_experiment(one, data, "registry.example.com/llm", image, "1234")
    for name, text in made.files().items():
        (pod.config / name).write_text(text)
    # The volume belongs to the pods: what we put there they may read.
    there = pod.work / Path(made.paths.base).relative_to("/work")
    there.mkdir(parents=True)
    for path, bytes_of_file in content.items():
        (there / path).write_bytes(bytes_of_file)
    rows = pod.work / Path(made.paths.dataset).relative_to("/work")
    rows.mkdir(parents=True)
    for file in one.dataset.files:
        (rows / file.path).write_bytes(file.data or (file.source or Path()).read_bytes())
    return made


def place(pod: Pod, path: str) -> Path:
    return pod.work / Path(path).relative_to("/work")


def test_the_keys_and_templates_we_read_are_those_that_llama_factory_takes(pod: Pod, known: Known) -> None:
    pod.run(["python", "-c", _TAKES])
    takes = json.loads((pod.work / "takes.json").read_text())
    assert sorted(known.keys) == takes["keys"]
    assert sorted(known.templates) == takes["templates"]


def test_the_parser_in_the_image_is_asked_before_anything_is_sent(
    pod: Pod, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    image = ImageRef.parse("registry.example.com/llm/llama-factory-train").pin(pod.image)
    parser.ask(run, image)
    assert "LLaMA-Factory takes the configuration" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(UsageError, match="load_best_model_at_end requires the save and eval strategy to match"):
        parser.ask(dataclasses.replace(run, train=f"{run.train}load_best_model_at_end: true\n"), image)


def test_the_example_is_trained_resumed_and_exported_and_has_learnt_its_answers(pod: Pod, run: Run) -> None:
    (pod.work / "runs").mkdir()
    (pod.work / "runs").chmod(0o777)
    assert "LLaMA-Factory takes the configurations" in pod.step("check")
    said = pod.step("train")
    output, export, logs = (place(pod, path) for path in (run.paths.output, run.paths.export, run.paths.logs))
    assert json.loads((output / "all_results.json").read_text())["epoch"] == 400
    assert len(list(output.glob("checkpoint-*"))) == 2, "save_total_limit was not heard"
    assert "Resuming training" not in said
    # The log is kept, whoever asks the pod.
    assert "train metrics" in (logs / "train.log").read_text(errors="replace")
    # A second try goes on from the last whole checkpoint; what a killed one was writing is set aside.
    before, last = sorted(output.glob("checkpoint-*"), key=lambda one: int(one.name.rpartition("-")[2]))
    weights = last / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (last / "trainer_state.json").unlink()
    said = pod.step("train")
    assert f"{last.name} is torn" in said
    assert f"Resuming training from {run.paths.output}/{before.name}" in said
    assert (output / f"torn-{last.name}").is_dir()
    pod.step("export")
    assert (export / "model.safetensors").is_file()
    assert (export / "tokenizer.json").is_file()
    assert not (export / "adapter_config.json").exists(), "the adapter was not merged"
    assert (export / "chat_template.jinja").is_file()
    questions = f"{run.paths.dataset}/questions.json"
    pod.run(["python", "-c", _ANSWERS, run.paths.export, questions])
    wanted = [row["output"] for row in json.loads(place(pod, questions).read_text())]
    assert json.loads((pod.work / "answers.json").read_text()) == wanted
