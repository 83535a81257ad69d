"""A set for a cluster without a GPU (`accelerator: none`): nothing asks for one, and what serves is set for the CPU.

Applied to the same plain manifests that ask for GPUs. The image is changed where images are pinned (`Environment.image_for`).
What is changed here is what vLLM 0.28 and LLaMA-Factory 0.9.5 need on a CPU: no share of a GPU's memory but a cache of a fixed
size, 32-bit floats (most CPUs only imitate bfloat16), and no compiling of the model, for which the images hold no compiler.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from k8s.envs.environment import Environment
from k8s.objects import embedded, manifests, pods, strict_yaml
from k8s.objects.findings import Finding
from k8s.objects.manifests import Manifest
from k8s.objects.pods import items, mapping
from k8s.objects.quantity import quantity

_VENDOR = "nvidia.com/"
_SERVES = ("llamafactory-cli api", "vllm serve")
# Gibibytes for vLLM's cache of keys and values: this share of what the container may use, and at least one.
_CACHE, _CACHE_SHARE = "VLLM_CPU_KVCACHE_SPACE", 4
# LLaMA-Factory trains with a thread for each whole CPU that its container asks for. torch would start one for each of the node,
# and threads that share a CPU wait for each other: measured, a training of 16 s then takes minutes.
_THREADS = "OMP_NUM_THREADS"


def adapt(objects: Sequence[Manifest], env: Environment) -> tuple[Manifest, ...]:
    """The manifests as they run without a GPU; unchanged where the environment has GPUs."""
    return tuple(objects) if env.gpu else tuple(map(_adapted, objects))


def experiment(config: Mapping[str, Any], env: Environment) -> dict[str, Any]:
    """An experiment's keys as they train in an environment: without a GPU on the CPU and in 32-bit floats."""
    return dict(config) if env.gpu else {**config, "use_cpu": True, "bf16": False, "fp16": False}


def _adapted(manifest: Manifest) -> Manifest:
    if manifest.kind == "ConfigMap":
        return _with_cpu_settings(manifest)
    manifest = _with_patches(manifest)
    for template in pods.templates(manifest):
        for group, path, container in template.grouped():
            # What stands there itself; a container of Argo's has more from a patch.
            own = pods.at(manifest.body, path)
            if _resources(own) != own.get("resources"):
                manifest = manifests.with_value(manifest, (*path, "resources"), _resources(own))
            words = [str(word) for key in ("command", "args") for word in container.get(key) or ()]
            serves = group == "containers" and " ".join(words).startswith(_SERVES)
            if serves or any("llamafactory-cli" in word for word in words):
                variable = (_CACHE, _cache(container)) if serves else (_THREADS, _threads(container))
                manifest = manifests.with_value(manifest, (*path, "env"), _with_variable(own, *variable))
            if serves and "args" in container:
                manifest = manifests.with_value(manifest, (*path, "args"), list(_arguments(container["args"])))
        for name, value in _placing(template.spec):
            manifest = manifests.with_value(manifest, template.place(name), value)
    return manifest


def _with_patches(manifest: Manifest) -> Manifest:
    """A workflow whose patches of pods ask for no GPU."""
    where, workflow = pods.workflow_spec(manifest)
    defaults = ((*where, "templateDefaults"), mapping(workflow.get("templateDefaults")))
    for path, holder in ((where, workflow), defaults, *pods.workflow_templates(manifest)):
        text, at = holder.get("podSpecPatch"), (*path, "podSpecPatch")
        bodies, _ = embedded.read(text) if isinstance(text, str) else ([], "")
        spec = mapping(bodies[0]) if len(bodies) == 1 else {}
        for name, value in _placing(spec):
            manifest = embedded.with_value(manifest, (*at, name), value)
        for group in pods.GROUPS:
            for number, container in enumerate(items(spec, group)):
                if (kept := _resources(container)) != container.get("resources"):
                    manifest = embedded.with_value(manifest, (*at, group, number, "resources"), kept)
    return manifest


def _resources(container: Mapping[str, Any]) -> Any:
    """Requests and limits without GPUs."""
    resources = container.get("resources")
    if not isinstance(resources, dict):
        return resources
    return {
        key: {name: count for name, count in value.items() if not str(name).startswith(_VENDOR)}
        if isinstance(value, dict)
        else value
        for key, value in resources.items()
    }


def _placing(spec: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What binds a pod to nodes with GPUs, without that."""
    tolerations = items(spec, "tolerations")
    left = [one for one in tolerations if not str(one.get("key", "")).startswith(_VENDOR)]
    if left != tolerations:
        yield "tolerations", left
    selector = mapping(spec.get("nodeSelector"))
    if any(str(key).startswith(_VENDOR) for key in selector):
        yield "nodeSelector", {key: value for key, value in selector.items() if not str(key).startswith(_VENDOR)}
    affinity = mapping(spec.get("affinity"))
    if _VENDOR in str(affinity.get("nodeAffinity", "")):
        yield "affinity", {key: value for key, value in affinity.items() if key != "nodeAffinity"}


def _with_variable(container: Mapping[str, Any], name: str, value: int) -> list[Any]:
    """The container's variables, with this one unless it says it itself."""
    variables = list(container.get("env") or ())
    said = any(mapping(one).get("name") == name for one in variables)
    return variables if said else [*variables, {"name": name, "value": str(value)}]


def _cache(container: Mapping[str, Any]) -> int:
    limit = quantity(mapping(mapping(container.get("resources")).get("limits")).get("memory", "0")) or 0
    return max(1, int(limit) // _CACHE_SHARE >> 30)


def _threads(container: Mapping[str, Any]) -> int:
    return max(1, int(quantity(mapping(mapping(container.get("resources")).get("requests")).get("cpu", "0")) or 0))


def _arguments(arguments: Sequence[Any]) -> Iterator[Any]:
    """VLLM's own arguments for the CPU."""
    for argument in arguments:
        if argument == "--dtype=bfloat16":
            yield "--dtype=float32"
        elif not str(argument).startswith("--gpu-memory-utilization="):
            yield argument
    if "--enforce-eager" not in arguments and any(str(one).startswith("--max-model-len") for one in arguments):
        yield "--enforce-eager"


def _with_cpu_settings(manifest: Manifest) -> Manifest:
    """A ConfigMap whose LLaMA-Factory configurations for vLLM are those of the CPU."""
    for key, text in mapping(manifest.body.get("data")).items():
        documents = list(strict_yaml.documents(text, manifest.file)) if isinstance(text, str) else []
        if len(documents) != 1 or isinstance(documents[0], Finding):
            continue
        settings = documents[0][0]
        if isinstance(settings, dict) and settings.get("infer_backend") == "vllm":
            kept = {name: value for name, value in settings.items() if name != "vllm_gpu_util"}
            body = {**kept, "infer_dtype": "float32", "vllm_enforce_eager": True}
            manifest = manifests.with_value(manifest, ("data", key), strict_yaml.dump([body]))
    return manifest
