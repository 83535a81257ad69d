"""The workflow and the init container in the manifests: they agree with their programs, and give each step its least."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from common.errors import ExitCode, UsageError
from common.run import run
from k8s import secrets
from k8s.envs import environment
from k8s.pipeline.model_annotation import preflight
from k8s.pipeline.register import KEY_VARIABLE
from tests.k8s.conftest import REPO, Checkout

# Each makes, registers and fetches a model.
pytestmark = pytest.mark.slow

STEPS = ["check", "download", "train", "export", "register", "deploy"]
# What follows `step NAME --` in each.
COMMANDS = {
    "check": ["python", "-m", "pinwheel_pipeline.check"],
    "download": ["python", "-m", "pinwheel_pipeline.download"],
    "train": [
        *("python", "-m", "pinwheel_pipeline.train", "--workdir=/tmp", "--"),
        *("llamafactory-cli", "train", "/config/train.yaml"),
    ],
    "export": ["llamafactory-cli", "export", "/config/export.yaml"],
    "register": ["python", "-m", "pinwheel_pipeline.register"],
    "deploy": ["python", "-m", "pinwheel_pipeline.promote", "{{inputs.parameters.model}}"],
}


def objects(folder: str) -> list[dict[str, Any]]:
    files = sorted((REPO / "manifests" / folder).glob("*.yaml"))
    return [body for file in files for body in yaml.safe_load_all(file.read_text())]


def one(folder: str, kind: str, name: str) -> dict[str, Any]:
    (found,) = [body for body in objects(folder) if (body["kind"], body["metadata"]["name"]) == (kind, name)]
    return found


def workflow() -> dict[str, Any]:
    spec: dict[str, Any] = one("training", "WorkflowTemplate", "llama-factory-train")["spec"]
    return spec


def template(name: str) -> dict[str, Any]:
    (found,) = [body for body in workflow()["templates"] if body["name"] == name]
    assert isinstance(found, dict)
    return found


def secrets_of(body: dict[str, Any]) -> set[str]:
    """The Secrets a template mounts or reads."""
    mounted = {volume["secret"]["secretName"] for volume in body.get("volumes", ()) if "secret" in volume}
    read = {item["valueFrom"]["secretKeyRef"]["name"] for item in body["container"].get("env", ()) if "valueFrom" in item}
    return mounted | read


def test_the_steps_run_one_after_the_other_and_a_failed_one_is_the_last() -> None:
    groups = template("run")["steps"]
    assert [[step["template"] for step in group] for group in groups] == [[name] for name in STEPS]
    assert all("continueOn" not in step for group in groups for step in group)
    assert [step["name"] for group in groups for step in group if "when" in step] == ["deploy"]
    assert "onExit" not in workflow()


@pytest.mark.parametrize("name", STEPS)
def test_a_step_runs_its_program_under_its_own_name_and_without_a_shell(name: str) -> None:
    container = template(name)["container"]
    assert container["command"] == ["python", "-m", "pinwheel_pipeline.step"]
    # LLaMA-Factory writes beside itself; our programs are found where they lie.
    workdir = ["--workdir", "/tmp"] if COMMANDS[name][0] != "python" else []
    # What the export hands on is its own alone.
    fresh = ["--fresh", "export"] if name == "export" else []
    assert container["args"] == [*workdir, *fresh, name, "--", *COMMANDS[name]]
    assert container["workingDir"] == "/opt/pinwheel"
    assert container["image"] == "llama-factory-train"
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"work": "/work", "config": "/config", "tmp": "/tmp"}.items() <= mounts.items()


def test_each_step_sees_the_secrets_it_needs_and_no_other() -> None:
    seen = {name: secrets_of(template(name)) for name in STEPS}
    assert seen == {
        "check": set(),
        "download": {"hf-secret", "hf-proxy-secret", "model-registry"},
        "train": set(),
        "export": set(),
        "register": {"model-registry", "model-signing-key"},
        "deploy": set(),
    }
    assert not any("secret" in volume for volume in workflow()["volumes"])


def test_argos_own_container_sees_no_signing_key() -> None:
    """It gets every volume of the step's container (workflow/controller/workflowpod.go, `addOutputArtifactsVolumes`)."""
    for name in STEPS:
        mounted = {volume["secret"]["secretName"] for volume in template(name).get("volumes", []) if "secret" in volume}
        assert "model-signing-key" not in mounted


def test_only_the_executor_and_the_deploy_step_have_a_token() -> None:
    spec = workflow()
    assert (spec["automountServiceAccountToken"], spec["serviceAccountName"]) == (False, "training")
    assert spec["executor"] == {"serviceAccountName": "training-executor"}
    own = {
        name: template(name).get("serviceAccountName") for name in STEPS if template(name).get("automountServiceAccountToken")
    }
    assert own == {"deploy": "model-deployer"}
    tokens = {
        body["metadata"]["name"]: body["automountServiceAccountToken"]
        for body in objects("training")
        if body["kind"] == "ServiceAccount"
    }
    assert [name for name, mounted in tokens.items() if mounted] == ["model-deployer"]


def test_the_executor_may_report_results_and_the_deploy_step_may_change_one_deployment_and_its_preflight() -> None:
    assert one("training", "Role", "training-executor")["rules"] == [
        {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
    ]
    deployer = one("training", "Role", "model-deployer")
    assert deployer["metadata"]["namespace"] == "llm-inference"
    assert deployer["rules"] == [
        {
            "apiGroups": ["apps"],
            "resources": ["deployments"],
            "resourceNames": ["llama-factory-inference", preflight("llama-factory-inference")],
            "verbs": ["get", "patch"],
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    ]
    bindings = {
        (body["metadata"]["namespace"], body["roleRef"]["name"], body["subjects"][0]["namespace"], body["subjects"][0]["name"])
        for body in objects("training")
        if body["kind"] == "RoleBinding"
    }
    assert bindings == {
        ("llm-training", "training-executor", "llm-training", "training-executor"),
        ("llm-inference", "model-deployer", "llm-training", "model-deployer"),
    }


def test_the_token_secret_of_the_executor_holds_no_value_and_is_found_by_its_name() -> None:
    (secret,) = [body for body in objects("training") if body["kind"] == "Secret"]
    assert secret["metadata"]["name"] == "training-executor.service-account-token"
    assert (secret["type"], set(secret)) == ("kubernetes.io/service-account-token", {"apiVersion", "kind", "metadata", "type"})
    rules = one("argo", "Role", "workflow-controller")["rules"]
    assert [rule["resourceNames"] for rule in rules if "secrets" in rule["resources"]] == [[secret["metadata"]["name"]]]


def test_the_controller_has_no_right_to_everything() -> None:
    for rule in one("argo", "Role", "workflow-controller")["rules"]:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_every_step_ends_and_is_tried_again_and_the_whole_is_bounded() -> None:
    spec = workflow()
    for name in STEPS:
        body = template(name)
        assert 0 < body["activeDeadlineSeconds"] <= spec["activeDeadlineSeconds"]
        assert body["retryStrategy"]["limit"] >= 1
        assert body["retryStrategy"]["backoff"]["duration"]
    # A configuration that is refused and a model that does not start are not tried twice: only a lost pod is.
    assert [name for name in STEPS if template(name)["retryStrategy"]["retryPolicy"] != "Always"] == ["check", "deploy"]
    assert spec["synchronization"] == {"mutexes": [{"name": "training-work"}]}
    assert spec["podGC"]["strategy"] == "OnWorkflowSuccess"
    assert set(spec["ttlStrategy"]) == {"secondsAfterSuccess", "secondsAfterFailure"}


def test_a_training_that_llama_factory_refuses_is_not_tried_again() -> None:
    assert template("train")["retryStrategy"]["expression"] == f"asInt(lastRetry.exitCode) != {ExitCode.USAGE:d}"


def test_only_training_takes_a_gpu_and_goes_to_its_nodes() -> None:
    assert [name for name in STEPS if "nvidia.com/gpu" in yaml.safe_dump(template(name))] == ["train"]
    (patched,) = yaml.safe_load(template("train")["podSpecPatch"])["containers"]
    asked = {"nvidia.com/gpu": "{{workflow.parameters.gpus}}"}
    assert patched == {"name": "main", "resources": {"requests": asked, "limits": asked}}
    # LLaMA-Factory's launcher starts this many processes where it sees several GPUs (llamafactory/launcher.py).
    assert {"name": "NPROC_PER_NODE", "value": asked["nvidia.com/gpu"]} in template("train")["container"]["env"]
    assert [name for name in STEPS if "tolerations" in template(name)] == ["train"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in template("train")["container"]["volumeMounts"]


def test_the_reference_goes_from_the_register_step_to_the_deploy_step() -> None:
    (output,) = template("register")["outputs"]["parameters"]
    assert output == {"name": "model", "valueFrom": {"path": "/tmp/model"}}
    ((deploy,),) = [group for group in template("run")["steps"] if group[0]["name"] == "deploy"]
    (argument,) = deploy["arguments"]["parameters"]
    assert argument == {"name": "model", "value": "{{steps.register.outputs.parameters.model}}"}
    assert (REPO / "pipeline/register.py").read_text().count('Path("/tmp/model")') == 1


def test_paths_that_the_programs_expect_are_those_of_the_mounts() -> None:
    def default(program: str, option: str) -> str:
        found = re.search(rf'"--{option}", type=Path, default=Path\("([^"]+)"\)', (REPO / "pipeline" / program).read_text())
        assert found
        return found[1]

    register = {mount["name"]: mount["mountPath"] for mount in template("register")["container"]["volumeMounts"]}
    variable = next(one for one in template("register")["container"]["env"] if one["name"] == KEY_VARIABLE)
    assert variable["valueFrom"] == {"secretKeyRef": {"name": "model-signing-key", "key": "model.key"}}
    assert default("register.py", "config") == register["config"]
    pod = one("inference", "Deployment", "llama-factory-inference")["spec"]["template"]["spec"]
    (fetch,) = pod["initContainers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in fetch["volumeMounts"]}
    assert default("fetch.py", "key") == f"{mounts['trust']}/model.pub"
    assert default("fetch.py", "config") == f"{mounts['config']}/inference.yaml"
    assert default("fetch.py", "models") == mounts["models"]
    assert pod["containers"][0]["command"] == ["llamafactory-cli", "api", f"{mounts['models']}/inference.yaml"]


def test_the_server_reads_the_model_that_was_fetched_and_nothing_of_the_pod_writes_there_later() -> None:
    pod = one("inference", "Deployment", "llama-factory-inference")["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    (mount,) = [mount for mount in server["volumeMounts"] if mount["name"] == "models"]
    assert mount["readOnly"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "models"]
    assert volume["ephemeral"]["volumeClaimTemplate"]["spec"]["accessModes"] == ["ReadWriteOnce"]
    # Only the init container knows whom to trust, and the login.
    assert {mount["name"] for mount in server["volumeMounts"]} == {"models", "shm", "tmp"}


def test_prompts_do_not_go_into_the_log() -> None:
    (server,) = one("inference", "Deployment", "llama-factory-inference")["spec"]["template"]["spec"]["containers"]
    assert {"name": "LLAMAFACTORY_VERBOSITY", "value": "WARNING"} in server["env"]


def test_the_config_map_names_no_model_and_no_template() -> None:
    config = yaml.safe_load(one("inference", "ConfigMap", "llama-factory-inference")["data"]["inference.yaml"])
    assert not {"model_name_or_path", "template", "adapter_name_or_path"} & set(config)
    assert config["trust_remote_code"] is False


def test_nothing_of_the_whole_set_is_found_wrong(checkout: Checkout) -> None:
    assert checkout.findings() == []


def test_a_quota_or_a_policy_closes_every_namespace(checkout: Checkout) -> None:
    rendered, _ = checkout.check()
    spaces = {one.name for one in rendered.objects if one.kind == "Namespace"}
    for kind, name in (("NetworkPolicy", "default-deny"), ("ServiceAccount", "default")):
        assert {one.namespace for one in rendered.objects if (one.kind, one.name) == (kind, name)} == spaces
    assert {one.namespace for one in rendered.objects if one.kind == "ResourceQuota"} == spaces


@pytest.mark.host
def test_the_keys_that_the_document_makes_are_taken_by_the_secrets_command(checkout: Checkout) -> None:
    """docs/cluster.md, step 5, as it stands; what a person types at the prompt comes by a pipe."""
    text = (REPO.parent / "docs" / "cluster.md").read_text()
    step = text[text.index("**5. Secrets**") : text.index("**6. Everything")]
    lines = [line.strip() for line in step.splitlines() if line.startswith("    ") and "invokew" not in line]
    work = checkout.root / "work"
    work.mkdir()
    run(["bash", "-euo", "pipefail", "-c", "\n".join(lines)], cwd=work, stdin="ada:s3cret\n", error=UsageError)
    for (namespace, name), keys in environment.load("staging").secrets.items():
        for key in keys:
            assert secrets.offered(namespace, name, key, str(checkout.root / "keys")), (namespace, name, key)
    public = run(
        ["openssl", "pkey", "-pubin", "-in", work / "k8s/keys/staging-models.pub", "-text", "-noout"], error=UsageError
    )
    assert "prime256v1" in public.stdout
