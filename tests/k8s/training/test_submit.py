"""`invoke train` through real kubectl to the simulator, and into a directory: what is there afterwards, and what is not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from common import single_node
from common.errors import ExitCode, MissingEnvironmentError, PolicyError, UsageError
from k8s.envs.environment import ClusterTarget
from k8s.objects import manifests
from k8s.objects.manifests import Manifest
from k8s.training import artifact, receipt, submit
from k8s.training.names import NAMESPACE
from oci.client.client import Client
from oci.client.target import Registry
from tests.k8s.conftest import NEW
from tests.k8s.simulator.wire import Fault
from tests.k8s.training.conftest import BASE, FILE, Site
from tests.oci.conftest import QUICK

pytestmark = pytest.mark.host


def writes(site: Site) -> list[str]:
    return [path.split("?")[0] for method, path in site.api.requests if method in {"PATCH", "POST", "DELETE", "PUT"}]


def test_a_run_is_a_dataset_a_config_map_and_a_workflow(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    result = site.go()
    assert (result.result, site.workflows()) == ("submitted", [result.version])
    config = site.api.body("ConfigMap", f"experiment-{result.version}")
    assert sorted(config["data"]) == ["base-model.json", "export.yaml", "run.json", "train.yaml"]
    run = json.loads(config["data"]["run.json"])
    assert run["train-image"] == f"{site.registry.address}/llm/llama-factory-train@{NEW}"
    assert run["model"] == f"{site.registry.address}/llm/models/example-tiny"
    workflow = site.api.body("Workflow", result.version)
    assert workflow["spec"] == {
        "workflowTemplateRef": {"name": "llama-factory-train"},
        "arguments": {
            "parameters": [
                {"name": "version", "value": result.version},
                {"name": "deploy", "value": "true"},
                {"name": "gpus", "value": "1"},
            ],
        },
    }
    assert result.dataset.partition("@")[2] in site.registry.blobs()
    # The ConfigMap first: a pod without it would wait for it.
    assert [path.rsplit("/", 1)[0].rsplit("/", 1)[-1] for path in writes(site)][-2:] == ["configmaps", NAMESPACE]
    said = json.loads(receipt.path("staging").read_text())
    assert (said["result"], said["version"], said["base"]) == ("submitted", result.version, f"{BASE.repo}@{BASE.commit}")
    assert "--watch" in capsys.readouterr().out


def test_an_experiment_gets_the_gpus_it_asks_for(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    one = site.go(dry_run=True).version
    site.lab.say(gpus=4)
    version = site.go().version
    assert version != one
    parameters = site.api.body("Workflow", version)["spec"]["arguments"]["parameters"]
    assert {"name": "gpus", "value": "4"} in parameters
    # The key is ours: LLaMA-Factory would refuse it.
    assert "gpus" not in site.api.body("ConfigMap", f"experiment-{version}")["data"]["train.yaml"]
    assert "GPUs         4, a process of torchrun for each" in capsys.readouterr().out


def test_more_gpus_than_the_quota_allows_are_refused_before_anything_is_sent(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.lab.say(gpus=5)
    before = writes(site)
    with pytest.raises(PolicyError):
        site.go()
    assert "allows nvidia.com/gpu 4, the set may ask for 5 (WorkflowTemplate" in " ".join(capsys.readouterr().err.split())
    assert writes(site) == before
    assert not site.registry.blobs()


def test_gpus_where_there_are_none_are_refused_and_no_number_of_them_is_not(site: Site) -> None:
    for asked in (1, 4):
        site.lab.say(gpus=asked)
        with pytest.raises(UsageError, match=f"it asks for {asked} GPUs, and rendered has none") as caught:
            submit.train(FILE, "rendered")
        assert "leave `gpus` out to train on the CPU" in caught.value.line()
    assert not site.registry.blobs()
    site.lab.say(gpus=None)
    assert submit.train(FILE, "rendered", dry_run=True).result == "planned"


def test_a_model_may_be_trained_and_not_served(site: Site) -> None:
    site.checkout.lock({"llama-factory-train": NEW, "llama-factory-api": "sha256:" + "a" * 64})
    result = site.go(deploy=False)
    parameters = site.api.body("Workflow", result.version)["spec"]["arguments"]["parameters"]
    assert {"name": "deploy", "value": "false"} in parameters
    assert [image.partition("@")[0].rsplit("/")[-1] for image in result.images] == ["llama-factory-train"]


def test_a_dry_run_sends_nothing_anywhere(site: Site) -> None:
    before = set(site.api.objects)
    assert site.go(dry_run=True).result == "planned"
    assert set(site.api.objects) == before
    assert not site.registry.blobs()
    assert not receipt.path("staging").exists()


def test_a_run_that_is_there_is_left_alone(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    version = site.go().version
    site.controller(version).phase("Running")
    before = writes(site)
    assert site.go().result == "there"
    assert writes(site) == before
    assert f"Workflow {NAMESPACE}/{version}: Running; nothing was submitted" in capsys.readouterr().out


def test_a_run_that_went_well_is_run_once_more_only_when_asked(site: Site) -> None:
    version = site.go().version
    site.controller(version).succeed("registry.example.com/llm/models/example-tiny@sha256:" + "1" * 64)
    assert site.go().result == "there"
    assert site.go(again=True).result == "submitted"
    assert "status" not in site.api.body("Workflow", version)


def test_a_failed_run_is_run_again_only_when_asked(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    version = site.go().version
    site.controller(version).phase("Failed", "child failed")
    assert site.go().result == "there"
    assert "add --again" in capsys.readouterr().out
    assert site.go(again=True).result == "submitted"
    assert "status" not in site.api.body("Workflow", version)
    assert f"deleting     Workflow {NAMESPACE}/{version}, which ended Failed" in capsys.readouterr().err


def test_a_run_that_goes_on_is_not_begun_again_even_when_asked(site: Site) -> None:
    version = site.go().version
    site.controller(version).phase("Running")
    assert site.go(again=True).result == "there"
    assert site.api.body("Workflow", version)["status"]["phase"] == "Running"


def test_a_new_cluster_of_this_machine_trains_anew_whatever_the_registry_has_kept(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has keys of its own, and serves nothing yet: the first command, run once more after `--down`, ends with an answer."""
    kept = f"{site.registry.address}/llm/models/example-tiny@sha256:{'a' * 64}"
    monkeypatch.setattr(artifact, "model_reference", lambda *_, **__: kept)
    assert site.go(dry_run=True).result == "there"
    monkeypatch.setattr(ClusterTarget, "of_this_machine", True)
    monkeypatch.setattr(single_node, "kubectl", lambda: Path(shutil.which("kubectl") or ""))
    assert site.go(dry_run=True).result == "planned"


def test_a_version_whose_model_is_there_is_not_trained_once_more(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    version = site.go().version
    site.api.remove("Workflow", version)
    # What register.py leaves: a manifest under the version. The dataset's serves as one.
    blobs = site.registry.blobs()
    made = site.lab.read()
    with Client(Registry.parse(site.registry.address), QUICK, writes=True) as client:
        name = f"llm/models/{made.name}"
        manifest = blobs[json.loads(receipt.path("staging").read_text())["dataset"].partition("@")[2]]
        for one in [json.loads(manifest)["config"], *json.loads(manifest)["layers"]]:
            assert client.mount(name, one["digest"], f"llm/datasets/{made.name}")[0]
        client.put_manifest(name, version, manifest)
    result = site.go()
    assert (result.result, result.model.partition("@")[0]) == ("there", f"{site.registry.address}/llm/models/example-tiny")
    assert not site.workflows()
    assert f"model: {{reference: {result.model}" in capsys.readouterr().out
    assert site.go(again=True).result == "submitted"


# --- refused, and nothing sent ---


def refused(site: Site, error: type[Exception], words: str) -> None:
    before = writes(site)
    with pytest.raises(error, match=words):
        site.go()
    assert writes(site) == before
    assert not site.workflows()


def test_an_experiment_that_is_wrong_reaches_no_cluster(site: Site) -> None:
    site.lab.say(trust_remote_code=True)
    refused(site, UsageError, "code from a model repository")
    assert not site.api.requests


def test_an_image_that_was_never_pushed_is_refused(site: Site) -> None:
    site.checkout.lock({"llama-factory-api": NEW})
    refused(site, PolicyError, "no digest is known for llama-factory-train")


def test_a_cluster_without_argo_is_named(site: Site) -> None:
    site.api.crds = False
    refused(site, MissingEnvironmentError, "knows no workflows.*install Argo Workflows: docs/cluster.md")


def test_a_cluster_without_the_template_is_deployed_to_first(site: Site) -> None:
    site.api.remove("WorkflowTemplate", "llama-factory-train")
    refused(site, PolicyError, "has no WorkflowTemplate.*`invoke deploy --env staging` first")


def test_a_cluster_with_another_image_is_deployed_to_first(site: Site) -> None:
    api_image = "sha256:" + "a" * 64
    site.checkout.lock({"llama-factory-train": "sha256:" + "d" * 64, "llama-factory-api": api_image})
    refused(
        site, PolicyError, r"runs .*llama-factory-train@sha256:b+ where this checkout has .*@sha256:d+.*deploy --env staging"
    )


def test_a_cluster_with_another_template_is_deployed_to_first(site: Site) -> None:
    template = next(manifest for manifest in site.needed() if manifest.kind == "WorkflowTemplate")
    body = {**template.body, "spec": {**template.body["spec"], "activeDeadlineSeconds": 1}}
    site.api.edit("WorkflowTemplate", "llama-factory-train", body, "pinwheel")
    refused(site, PolicyError, "WorkflowTemplate llm-training/llama-factory-train is another in the cluster")


def test_missing_secrets_are_named_by_key_and_no_value_is_read(site: Site) -> None:
    site.api.remove("Secret", "model-signing-key")
    refused(site, PolicyError, "llm-training/model-signing-key: model.key.*`invoke secrets --env staging`")


def test_a_manifest_of_the_checkout_that_is_wrong_stops_the_run(site: Site) -> None:
    site.checkout.edit("workflowtemplate.yaml", "entrypoint: run", "entrypoint: runs")
    refused(site, PolicyError, "finding")


def test_a_user_who_may_not_create_workflows_is_told_so(site: Site) -> None:
    site.api.forbidden.add(("create", "workflows"))
    with pytest.raises(PolicyError, match=r"refuses the workflow.*cannot create resource"):
        site.go()
    assert not site.workflows()


def test_an_answer_that_is_lost_is_no_second_workflow(site: Site) -> None:
    site.api.faults.append(Fault(500, method="POST", kind="Workflow", times=2))
    result = site.go()
    assert (result.result, site.workflows()) == ("submitted", [result.version])


def test_a_config_map_that_no_cluster_takes_is_refused(site: Site) -> None:
    site.lab.say(default_system="x" * 900_000)
    refused(site, PolicyError, r"ConfigMap would have \d+ bytes")


# --- directories ---


def test_into_a_directory_the_same_objects_are_written_whole_and_nothing_is_submitted(site: Site) -> None:
    result = submit.train(FILE, "rendered")
    place = site.lab.root / "dist" / "rendered-runs" / result.version
    assert sorted(file.name for file in place.iterdir()) == ["configmap.yaml", "workflow.yaml"]
    objects, found = manifests.load([place])
    assert not found
    assert [(one.kind, one.namespace, one.name) for one in objects] == [
        ("ConfigMap", NAMESPACE, f"experiment-{result.version}"),
        ("Workflow", NAMESPACE, result.version),
    ]
    assert isinstance(objects[0], Manifest)
    assert re.search(
        r"(?m)^# Rendered by Pinwheel for environment rendered: experiments/example", (place / "workflow.yaml").read_text()
    )
    assert result.result == "written"
    assert not site.api.requests
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in place.iterdir()}
    assert submit.train(FILE, "rendered").version == result.version
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in place.iterdir()} == before


@pytest.mark.parametrize("option", ["follow", "again"])
def test_nothing_runs_in_a_directory(site: Site, option: str) -> None:
    with pytest.raises(UsageError, match="nothing runs there"):
        submit.train(FILE, "rendered", **{option: True})  # type: ignore[arg-type]


def test_a_folder_that_is_not_ours_is_not_written_over(site: Site) -> None:
    version = submit.train(FILE, "rendered", dry_run=True).version
    place = site.lab.root / "dist" / "rendered-runs" / version
    place.mkdir(parents=True)
    (place / "mine.yaml").write_text("a: 1\n")
    with pytest.raises(UsageError, match="did not render") as caught:
        submit.train(FILE, "rendered")
    assert caught.value.exit_code == ExitCode.USAGE
    assert (place / "mine.yaml").read_text() == "a: 1\n"
