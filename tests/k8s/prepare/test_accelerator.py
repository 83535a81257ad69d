"""The same manifests for a cluster without a GPU: nothing asks for one, and vLLM is set for the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from common import paths
from common.errors import UsageError
from k8s.envs import environment
from k8s.envs.environment import Environment
from k8s.objects import manifests, strict_yaml
from k8s.objects.manifests import Manifest
from k8s.prepare import accelerator
from tests.k8s.conftest import REPO, Checkout

HEAD = 'target: {cluster: {context: c}}\nregistry: registry.example.com/llm\nkubernetes: "1.32"\nproof: none\n'
WITHOUT, WITH = (environment.parse(f"{HEAD}accelerator: {name}\n", "e", "e.yaml") for name in ("none", "nvidia"))


def adapted(body: dict[str, Any], env: Environment = WITHOUT) -> dict[str, Any]:
    (made,) = accelerator.adapt([Manifest("a.yaml", body, {})], env)
    return dict(made.body)


def deployment(**spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    }


def pod(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = body["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize("folder", ["manifests", "examples/vllm-serve"])
def test_nothing_of_the_platform_asks_for_a_gpu_and_with_gpus_not_a_byte_changes(folder: str) -> None:
    objects, unreadable = manifests.load([REPO / folder])
    assert not unreadable
    kept = {"ResourceQuota"}  # that none may be had is no request
    text = strict_yaml.dump(one.body for one in accelerator.adapt(objects, WITHOUT) if one.kind not in kept)
    assert "nvidia.com/" in strict_yaml.dump(one.body for one in objects if one.kind not in kept)
    assert "nvidia.com/" not in text
    assert "gpu_util" not in text
    assert "gpu-memory-utilization" not in text
    assert accelerator.adapt(objects, WITH) == tuple(objects)


def test_the_adapted_set_passes_every_rule(checkout: Checkout) -> None:
    assert checkout.findings("rendered") == []


def test_the_api_is_set_for_the_cpu_and_its_cache_fits_its_memory() -> None:
    objects, _ = manifests.load([paths.K8S / "manifests" / "inference"])
    made = {one.kind: one.body for one in accelerator.adapt(objects, WITHOUT)}
    settings = yaml.safe_load(made["ConfigMap"]["data"]["inference.yaml"])
    assert settings == {
        "trust_remote_code": False,
        "infer_backend": "vllm",
        "infer_dtype": "float32",
        "vllm_maxlen": 8192,
        "vllm_enforce_eager": True,
    }
    (server,) = pod(dict(made["Deployment"]))["containers"]
    assert {"name": "VLLM_CPU_KVCACHE_SPACE", "value": "12"} in server["env"]
    (fetch,) = pod(dict(made["Deployment"]))["initContainers"]
    assert all(one["name"] != "VLLM_CPU_KVCACHE_SPACE" for one in fetch["env"])


@pytest.mark.parametrize(("limit", "size"), [("48Gi", "12"), ("8Gi", "2"), ("1Gi", "1"), ("900M", "1"), ("odd", "1")])
def test_vllms_cache_is_a_quarter_of_the_memory_and_at_least_one_gibibyte(limit: str, size: str) -> None:
    server = {"name": "c", "command": ["vllm", "serve", "m"], "resources": {"limits": {"memory": limit}}}
    (made,) = pod(adapted(deployment(containers=[server])))["containers"]
    assert made["env"] == [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": size}]


def test_a_cache_that_the_author_sized_stays() -> None:
    own = [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "3"}]
    server = {"name": "c", "command": ["vllm", "serve", "m"], "env": own}
    assert pod(adapted(deployment(containers=[server])))["containers"] == [server]


def test_vllms_arguments_are_those_of_the_cpu() -> None:
    arguments = ["--dtype=bfloat16", "--max-model-len=8192", "--gpu-memory-utilization=0.9", "--port=1"]
    server = {"name": "c", "command": ["vllm", "serve", "m"], "args": arguments}
    (made,) = pod(adapted(deployment(containers=[server])))["containers"]
    assert made["args"] == ["--dtype=float32", "--max-model-len=8192", "--port=1", "--enforce-eager"]


@pytest.mark.parametrize(("asked", "threads"), [("4", "4"), ("500m", "1"), ("1500m", "1"), (None, "1")])
def test_what_trains_has_as_many_threads_as_whole_cpus(asked: str | None, threads: str) -> None:
    requests = {"nvidia.com/gpu": 1} | ({"cpu": asked} if asked else {})
    trainer = {"name": "c", "command": ["llamafactory-cli", "train"], "resources": {"requests": requests}}
    (made,) = pod(adapted(deployment(containers=[trainer])))["containers"]
    assert made["env"] == [{"name": "OMP_NUM_THREADS", "value": threads}]


def test_what_binds_a_pod_to_gpu_nodes_goes_and_what_binds_it_elsewhere_stays() -> None:
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists"}, {"key": "spot", "operator": "Exists"}]
    gpu_nodes = {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "nvidia.com/gpu.product", "operator": "Exists"}]}]
        }
    }
    apart: dict[str, Any] = {"preferredDuringSchedulingIgnoredDuringExecution": []}
    made = pod(
        adapted(
            deployment(
                tolerations=tolerations,
                nodeSelector={"nvidia.com/gpu.present": "true", "zone": "a"},
                affinity={"nodeAffinity": gpu_nodes, "podAntiAffinity": apart},
            )
        )
    )
    assert made["tolerations"] == tolerations[1:]
    assert made["nodeSelector"] == {"zone": "a"}
    assert made["affinity"] == {"podAntiAffinity": apart}


def test_an_instance_of_a_divided_gpu_is_a_gpu() -> None:
    resources = {"requests": {"cpu": "1", "nvidia.com/mig-1g.10gb": 1}, "limits": {"nvidia.com/gpu.shared": 1}}
    (made,) = pod(adapted(deployment(containers=[{"name": "c", "resources": resources}])))["containers"]
    assert made["resources"] == {"requests": {"cpu": "1"}, "limits": {}}


def flow(patch: str, container: dict[str, Any], **spec: Any) -> dict[str, Any]:
    step = {"name": "main", "podSpecPatch": patch, "container": {"image": "i", **container}}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTemplate",
        "metadata": {"name": "w", "namespace": "n"},
        "spec": {"entrypoint": "main", "templates": [step], **spec},
    }


GPUS = "{{workflow.parameters.gpus}}"


@pytest.mark.parametrize(
    ("patch", "left"),
    [
        (
            f"{{containers: [{{name: main, resources: {{limits: {{nvidia.com/gpu: '{GPUS}', memory: '{{{{m}}}}'}}}}}}]}}",
            "memory",
        ),
        (f"containers:\n- name: main\n  resources:\n    requests: {{nvidia.com/gpu: {GPUS}, cpu: 2}}\n", "cpu"),
        ("{tolerations: [{key: nvidia.com/gpu, operator: Exists}, {key: spot, operator: Exists}]}", "spot"),
        ("{nodeSelector: {nvidia.com/gpu.present: 'true', zone: a}}", "zone"),
        ("{initContainers: [{name: first, image: first, resources: {limits: {nvidia.com/mig-1g.10gb: 1}}}]}", "first"),
    ],
)
def test_a_patch_of_a_workflows_pods_asks_for_no_gpu_and_stays_otherwise(patch: str, left: str) -> None:
    own = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
    for body in (flow(patch, own), flow("{hostname: a}", own, podSpecPatch=patch)):
        made = adapted(body)
        text = strict_yaml.dump([made])
        assert "nvidia.com/" not in text
        assert left in text
        # What the patch says stands in the patch alone.
        assert made["spec"]["templates"][0]["container"] == {"image": "i", "resources": {"limits": {}}}
        assert adapted(body, WITH) == body


def test_a_patch_that_asks_for_no_gpu_keeps_its_text() -> None:
    patch = "containers:  # sized by hand\n  - {name: main, resources: {limits: {memory: '{{workflow.parameters.memory}}'}}}\n"
    body = flow(patch, {"command": ["llamafactory-cli"], "env": [{"name": "OMP_NUM_THREADS", "value": "2"}]})
    assert adapted(body) == body


@pytest.mark.parametrize(
    "text", ["a: [", "infer_backend: huggingface\nvllm_gpu_util: 1\n", "- vllm\n", "a: 1\n---\nb: 2\n", ""]
)
def test_other_texts_of_config_maps_stay_as_they_are(text: str) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}, "data": {"k": text}}
    assert adapted(body) == body


def test_an_experiment_trains_on_the_cpu_in_32_bit_floats_whatever_it_says() -> None:
    config = {"bf16": True, "learning_rate": 1e-2}
    assert accelerator.experiment(config, WITHOUT) == {**config, "use_cpu": True, "bf16": False, "fp16": False}
    assert accelerator.experiment(config, WITH) == config


def test_production_has_gpus() -> None:
    strict = HEAD.replace("none", "{key: k}") + "accelerator: none\n"
    with pytest.raises(UsageError, match="accelerator: production serves on GPUs"):
        environment.parse(strict, "production", "production.yaml")
