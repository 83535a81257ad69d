"""What is sent to a server whose admission policies are the set's own, and what it must say."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from k8s.objects.pods import mapping

REGISTRY = "10.233.0.1:5001"
OURS = f"{REGISTRY}/llama-factory-api-cpu@sha256:{'a' * 64}"
STRANGER = f"docker.io/attacker/x@sha256:{'b' * 64}"
LOCAL = "localhost/pinwheel/argoexec:0123456789ab"
MODEL = f"{REGISTRY}/models/tiny@sha256:{'c' * 64}"
PIPELINE = "system:serviceaccount:llm-training:model-deployer"
# Images that are refused: by tag, by nothing, of a stranger, of a place that only begins like ours.
WRONG = {
    "tag": f"{REGISTRY}/llama-factory-api-cpu:latest",
    "no tag": f"{REGISTRY}/llama-factory-api-cpu",
    "stranger": STRANGER,
    "likeness": f"{REGISTRY}.evil.example/x@sha256:{'a' * 64}",
    "two digests": f"{STRANGER}@sha256:{'a' * 64}",
    "likeness of the node's": f"localhost/pinwheelx/y@sha256:{'a' * 64}",
}


@dataclass(frozen=True)
class Attempt:
    """Something that is sent.

    Attributes:
        title: what it is.
        body: the object.
        allowed: whether the server takes it.
        before: the object that is there; None: none is.
        account: who sends it; empty: the administrator.
    """

    title: str
    body: dict[str, Any]
    allowed: bool
    before: dict[str, Any] | None = None
    account: str = ""


def container(image: str) -> dict[str, Any]:
    closed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {"name": "c", "image": image, "securityContext": closed}


def pod(image: str, **more: Any) -> dict[str, Any]:
    secure = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    return {"securityContext": secure, "automountServiceAccountToken": False, "containers": [container(image)], **more}


def named(api: str, kind: str, namespace: str = "llm-inference", **more: Any) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": "admitted", "namespace": namespace}, **more}


def workloads(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod in each kind that makes pods."""
    template = {"metadata": {"labels": {"a": "b"}}, "spec": spec}
    once = {"metadata": {"labels": {"a": "b"}}, "spec": {**spec, "restartPolicy": "Never"}}
    selector = {"matchLabels": {"a": "b"}}
    return [
        named("v1", "Pod", spec=spec),
        named("v1", "PodTemplate", template=template),
        named("v1", "ReplicationController", spec={"replicas": 0, "selector": {"a": "b"}, "template": template}),
        *(
            named("apps/v1", kind, spec={"selector": selector, "template": template})
            for kind in ("Deployment", "ReplicaSet", "DaemonSet")
        ),
        named("apps/v1", "StatefulSet", spec={"selector": selector, "serviceName": "s", "template": template}),
        named("batch/v1", "Job", spec={"template": once}),
        named("batch/v1", "CronJob", spec={"schedule": "@yearly", "jobTemplate": {"spec": {"template": once}}}),
    ]


def images() -> list[Attempt]:
    """What runs, in every kind and in every place of a pod."""
    made = [Attempt(f"{body['kind']}: ours", body, allowed=True) for body in workloads(pod(OURS))]
    made += [Attempt(f"{body['kind']}: a stranger's", body, allowed=False) for body in workloads(pod(STRANGER))]
    made += [Attempt(f"{name}: {image}", workloads(pod(image))[0], allowed=False) for name, image in WRONG.items()]
    made.append(Attempt("the node's own", workloads(pod(LOCAL))[0], allowed=True))
    inside = {"init container": {"initContainers": [{**container(STRANGER), "name": "i"}]}}
    inside["second container"] = {"containers": [container(OURS), {**container(STRANGER), "name": "d"}]}
    made += [Attempt(name, workloads(pod(OURS, **more))[0], allowed=False) for name, more in inside.items()]
    # In a Deployment: of a pod with this volume another admission may speak first.
    volume = pod(OURS, volumes=[{"name": "v", "image": {"reference": STRANGER}}])
    made.append(Attempt("image volume", workloads(volume)[3], allowed=False))
    elsewhere = named("v1", "Pod", "default", spec=pod(STRANGER))
    return [*made, Attempt("a stranger's, where nothing of ours runs", elsewhere, allowed=True)]


def deployment() -> dict[str, Any]:
    """What the pipeline promotes models in, as the server holds it."""
    template = {"metadata": {"labels": {"a": "b"}, "annotations": {"other": "x"}}, "spec": pod(OURS)}
    body = named("apps/v1", "Deployment", spec={"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template})
    body["metadata"] |= {"name": "promoted", "labels": {"l": "m"}, "annotations": {"kept": "y"}}
    return body


def promotions(before: dict[str, Any]) -> list[Attempt]:
    """What the pipeline's account may make of a Deployment, and what not."""

    def changed(path: str, value: Any) -> dict[str, Any]:
        body = copy.deepcopy(before)
        here: Any = body
        *steps, last = path.split("|")
        for step in steps:
            here = here[int(step)] if isinstance(here, list) else here.setdefault(step, {})
        if value is None:
            del here[last]
        else:
            here[last] = value
        return body

    annotation = "spec|template|metadata|annotations"
    right = {
        "another model": (f"{annotation}|pinwheel.io/model", MODEL),
        "what to put back": ("metadata|annotations|pinwheel.io/model-before", "none"),
        "the first pod": ("spec|replicas", 1),
    }
    wrong = {
        "a model of a stranger": (f"{annotation}|pinwheel.io/model", MODEL.replace(REGISTRY, "evil.example.com")),
        "a model by tag": (f"{annotation}|pinwheel.io/model", f"{REGISTRY}/models/tiny:latest"),
        "another annotation of the pods": (f"{annotation}|sidecar.istio.io/inject", "true"),
        "an annotation of the pods gone": (f"{annotation}|other", None),
        "another annotation": ("metadata|annotations|a.example/b", "c"),
        "an annotation gone": ("metadata|annotations|kept", None),
        "a label": ("metadata|labels|n", "o"),
        "a label of the pods": ("spec|template|metadata|labels|n", "o"),
        "an image": ("spec|template|spec|containers|0|image", OURS.replace("a" * 64, "d" * 64)),
        "a command": ("spec|template|spec|containers|0|command", ["sh"]),
        "a mounted Secret": ("spec|template|spec|volumes", [{"name": "s", "secret": {"secretName": "x"}}]),
        "an account": ("spec|template|spec|serviceAccountName", "other"),
        "many pods": ("spec|replicas", 5),
        "a pause": ("spec|paused", True),
        "a strategy": ("spec|strategy", {"type": "Recreate"}),
        "a deadline": ("spec|progressDeadlineSeconds", 7),
    }
    made = [Attempt(name, changed(*change), allowed=True, before=before, account=PIPELINE) for name, change in right.items()]
    made += [Attempt(name, changed(*change), allowed=False, before=before, account=PIPELINE) for name, change in wrong.items()]
    config = named("v1", "ConfigMap", data={"a": "b"})
    made.append(Attempt("another kind", config, allowed=False, account=PIPELINE))
    new = named("apps/v1", "Deployment", spec=before["spec"])
    new["metadata"]["name"] = "another"
    made.append(Attempt("another Deployment", new, allowed=False, account=PIPELINE))
    labelled = changed("metadata|labels|n", "o")
    assert mapping(labelled["metadata"])["labels"] == {"l": "m", "n": "o"}
    return [*made, Attempt("the same by somebody else", labelled, allowed=True, before=before)]
