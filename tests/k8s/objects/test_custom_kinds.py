"""Kinds of other people: their definitions give the schema, and every image in them is found by what the place looks like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common import paths
from k8s.envs import environment
from k8s.objects import manifests, pods, schema
from k8s.objects.manifests import Manifest
from k8s.prepare import pin
from tests.k8s.rules.judged import IMAGE, found, told

ENV = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "value": {"type": "string"},
            "valueFrom": {
                "type": "object",
                "properties": {
                    "secretKeyRef": {
                        "type": "object",
                        "properties": {"name": {"type": "string"}, "key": {"type": "string"}, "optional": {"type": "boolean"}},
                    }
                },
            },
        },
    },
}
CONTAINER = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "image": {"type": "string"},
        "command": {"type": "array", "items": {"type": "string"}},
        "args": {"type": "array", "items": {"type": "string"}},
        "env": ENV,
        "resources": {
            "type": "object",
            "properties": {
                "limits": {"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": True}},
                "requests": {"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": True}},
            },
        },
    },
}
CONTAINERS = {"type": "array", "items": CONTAINER, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
POD = {
    "type": "object",
    "properties": {
        "metadata": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "spec": {
            "type": "object",
            "properties": {
                "containers": CONTAINERS,
                "initContainers": CONTAINERS,
                "volumes": {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                "serviceAccountName": {"type": "string"},
                "hostNetwork": {"type": "boolean"},
            },
        },
    },
}


def definition(spec: dict[str, Any], *, kind: str = "Group", group: str = "acme.example.com", scope: str = "Namespaced") -> str:
    """A CustomResourceDefinition of one kind, as a document of JSON."""
    plural = kind.lower() + "s"
    body = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"kind": kind, "plural": plural},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
                }
            ],
        },
    }
    return f"---\n{json.dumps(body)}\n"


def custom(spec: dict[str, Any], *, kind: str = "Group", group: str = "acme.example.com", **metadata: str) -> str:
    """An object of such a kind."""
    named = {"name": "one", "namespace": "shop", **metadata}
    body = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": named, "spec": spec}
    return f"---\n{json.dumps(body)}\n"


PIPELINE = {
    "type": "object",
    "required": ["workers", "mode"],
    "properties": {
        "workers": {"type": "integer", "minimum": 1, "maximum": 8},
        "schedule": {"type": "string"},
        "mode": {"type": "string", "enum": ["fast", "slow"], "default": "fast"},
        "port": {"x-kubernetes-int-or-string": True},
    },
}
SERVES = {"type": "object", "properties": {"replicas": {"type": "integer"}, "workerTemplate": POD}}
OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


@pytest.mark.parametrize("port", [80, "http"])
def test_an_object_that_fits_its_definition_is_clean(port: object) -> None:
    assert told(definition(PIPELINE) + custom({"workers": 2, "schedule": "0 3 * * *", "port": port})) == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"workers": "2"}, "spec.workers: expected int, got str '2'"),
        ({"workers": 9}, "spec.workers: 9 is out of range"),
        ({"workers": 0}, "spec.workers: 0 is out of range"),
        ({"workers": 1, "mode": "quick"}, "spec.mode: 'quick' is none of the values there are"),
        ({"workers": 1, "scedule": "x"}, "spec.scedule: unknown field of Group"),
        ({}, "required-field: spec.workers: required and missing"),
    ],
)
def test_what_does_not_fit_the_definition_is_refused(spec: dict[str, Any], message: str) -> None:
    assert any(message in one for one in told(definition(PIPELINE) + custom(spec))), told(definition(PIPELINE) + custom(spec))


def test_a_kind_without_definition_is_refused_with_the_place_to_put_one() -> None:
    (wrong,) = found(custom({"workers": 1}))
    assert "no schema for acme.example.com/v1 Group" in wrong.what
    assert wrong.fix == "put its CustomResourceDefinition into the set or into k8s/crds"


def test_definitions_lie_in_a_folder_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "K8S", tmp_path)
    (tmp_path / "crds" / "acme").mkdir(parents=True)
    (tmp_path / "crds" / "acme" / "group.json").write_text(definition(PIPELINE))
    (tmp_path / "crds" / "README.md").write_text("# where they are from\n")
    (one,) = (one for one in manifests.parse(custom({"workers": 1}), "f") if isinstance(one, Manifest))
    assert schema.of_set("1.32", [one]).walk(one).findings == []


@pytest.mark.parametrize(
    ("written", "spec"),
    [
        (SERVES, {"workerTemplate": {"spec": {"containers": [{"name": "c", "image": "IMAGE"}]}}}),
        (SERVES, {"workerTemplate": {"spec": {"initContainers": [{"name": "c", "image": "IMAGE"}], "containers": []}}}),
        ({"type": "object", "properties": {"trainer": {"type": "object", "properties": {"image": {"type": "string"}}}}},
         {"trainer": {"image": "IMAGE"}}),
        ({"type": "object", "properties": {"runtimeImage": {"type": "string"}}}, {"runtimeImage": "IMAGE"}),
        (OPEN, {"anything": [{"podTemplate": {"spec": {"containers": [{"name": "c", "image": "IMAGE"}]}}}]}),
        (OPEN, {"image": "IMAGE"}),
    ],
    ids=["pod template", "init container", "a field", "a field by its end", "left open", "left open at the top"],
)  # fmt: skip
@pytest.mark.parametrize("image", ["nginx:1.27", "nginx", "quay.io/acme/a:1"])
def test_an_image_that_is_not_pinned_is_found_wherever_it_stands(
    written: dict[str, Any], spec: dict[str, Any], image: str
) -> None:
    text = definition(written) + custom(json.loads(json.dumps(spec).replace("IMAGE", image)))
    assert any(one.startswith("image: spec.") for one in told(text)), told(text)
    assert told(text.replace(f'"{image}"', f'"{IMAGE}"')) == []


def test_an_image_of_ours_is_pinned_in_a_custom_kind() -> None:
    spec = {"workerTemplate": {"spec": {"containers": [{"name": "c", "image": "llama-factory-train"}]}}}
    read = [one for one in manifests.parse(definition(SERVES) + custom(spec), "f") if isinstance(one, Manifest)]
    env = environment.load("staging")
    kinds = schema.of_set(env.kubernetes, read)
    digest = "sha256:" + "b" * 64
    pinned, pins, refused = pin.pin([kinds.walk(one) for one in read], env, {"llama-factory-train": digest})
    assert refused == ()
    (template,) = pods.templates(pinned[1])
    assert template.spec["containers"][0]["image"] == f"{env.registry}/llama-factory-train@{digest}"
    assert [str(one.pinned) for one in pins] == list(pin.images(pinned, env.kubernetes).values())


def test_rules_about_pods_reach_into_custom_kinds() -> None:
    container = {
        "name": "c",
        "image": IMAGE,
        "args": ["--api-key=not-a-real-one"],
        "env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "k"}}}],
        "resources": {"limits": {"memory": 1}, "requests": {"memory": 2}},
    }
    spec = {"workerTemplate": {"spec": {"hostNetwork": True, "serviceAccountName": "nobody", "containers": [container]}}}
    enforced = {"pod-security.kubernetes.io/enforce": "baseline"}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": enforced}}
    wrong = told(definition(SERVES) + f"---\n{json.dumps(space)}\n" + custom(spec))
    for message in (
        "no Secret shop/absent",
        "no ServiceAccount shop/nobody",
        "--api-key",
        "hostNetwork is set",
        "is more than limit",
    ):
        assert any(message in one for one in wrong), (message, wrong)


def test_a_kind_of_the_whole_cluster_has_no_namespace() -> None:
    text = definition(PIPELINE, scope="Cluster") + custom({"workers": 1})
    assert told(text) == ["namespace: metadata.namespace: a Group has no namespace"]
    assert told(text.replace('"namespace": "shop"', '"labels": {}')) == []


def test_rules_about_a_kind_of_kubernetes_do_not_judge_one_of_its_name() -> None:
    """Knative's Service, Calico's NetworkPolicy, Volcano's Job."""
    for kind in ("Service", "NetworkPolicy", "Job", "PodDisruptionBudget", "Ingress", "HorizontalPodAutoscaler"):
        text = definition(OPEN, kind=kind) + custom({"selector": {"app": "x"}, "ports": [{"port": 1}, {"port": 2}]}, kind=kind)
        assert told(text) == [], kind


def test_a_service_of_pods_that_an_operator_makes_is_taken() -> None:
    service = (
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec: {selector: {ray.io/node-type: head}}\n"
    )
    assert any("selects no pod of this set" in one for one in told(service))
    assert told(definition(OPEN) + custom({}) + service) == []


@pytest.mark.parametrize(
    ("group", "kind", "spec"),
    [
        ("cert-manager.io", "Certificate", {"secretName": "made"}),
        ("external-secrets.io", "ExternalSecret", {"target": {"name": "made"}}),
    ],
)
def test_a_secret_that_a_controller_makes_of_an_object_is_there(group: str, kind: str, spec: dict[str, Any]) -> None:
    pod = (
        "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\n"
        f"spec: {{containers: [{{name: c, image: '{IMAGE}', envFrom: [{{secretRef: {{name: made}}}}]}}]}}\n"
    )
    maker = definition(OPEN, kind=kind, group=group) + custom(spec, kind=kind, group=group)
    assert told(maker + pod) == []
    assert any("no Secret shop/made" in one for one in told(maker.replace("made", "other") + pod))


def test_what_argo_cd_applies_is_no_workflow() -> None:
    text = definition(OPEN, kind="Rollout", group="argoproj.io").replace('"v1"', '"v1alpha1"', 2)
    rollout = custom(
        {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}, kind="Rollout", group="argoproj.io"
    ).replace("argoproj.io/v1", "argoproj.io/v1alpha1")
    text = text.replace("apiextensions.k8s.io/v1alpha1", "apiextensions.k8s.io/v1")
    assert any("nginx:1 is not pinned" in one for one in told(text + rollout)), told(text + rollout)
