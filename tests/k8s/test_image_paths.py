"""Every place where Kubernetes pulls an image, in every version there is a schema for, is pinned; nothing else is."""

from __future__ import annotations

import re
from typing import Any

import pytest

from k8s import manifests, pin, schema, strict_yaml
from k8s.manifests import Manifest
from tests.k8s.conftest import API, OLD, Checkout

POD = {"containers": [{"name": "c", "image": API}]}
SPOTS: dict[str, dict[str, Any]] = {
    "container": {"containers": [{"name": "c", "image": API}]},
    "init container": {"containers": [], "initContainers": [{"name": "c", "image": API}]},
    "sidecar": {"containers": [], "initContainers": [{"name": "c", "image": API, "restartPolicy": "Always"}]},
    "ephemeral container": {"containers": [], "ephemeralContainers": [{"name": "c", "image": API}]},
    "image volume": {"containers": [], "volumes": [{"name": "v", "image": {"reference": API}}]},
}


def workload(api: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": "x", "namespace": "n"}, **spec}


def templated(pod: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"labels": {"a": "b"}}, "spec": pod}


def kinds(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    template, selector = templated(pod), {"matchLabels": {"a": "b"}}
    return {
        "Pod": workload("v1", "Pod", {"spec": pod}),
        "PodTemplate": workload("v1", "PodTemplate", {"template": template}),
        "ReplicationController": workload("v1", "ReplicationController", {"spec": {"template": template}}),
        "Deployment": workload("apps/v1", "Deployment", {"spec": {"selector": selector, "template": template}}),
        "ReplicaSet": workload("apps/v1", "ReplicaSet", {"spec": {"selector": selector, "template": template}}),
        "DaemonSet": workload("apps/v1", "DaemonSet", {"spec": {"selector": selector, "template": template}}),
        "StatefulSet": workload(
            "apps/v1", "StatefulSet", {"spec": {"selector": selector, "serviceName": "s", "template": template}}
        ),
        "Job": workload("batch/v1", "Job", {"spec": {"template": template}}),
        "CronJob": workload(
            "batch/v1", "CronJob", {"spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}}}
        ),
        "List": {"apiVersion": "v1", "kind": "List", "items": [workload("v1", "Pod", {"spec": pod})]},
    }


@pytest.mark.parametrize("spot", SPOTS)
@pytest.mark.parametrize("kind", kinds(POD))
def test_pins_every_image_of_every_kind(checkout: Checkout, kind: str, spot: str) -> None:
    checkout.add(strict_yaml.dump([kinds(SPOTS[spot])[kind]]))
    rendered, _ = checkout.check()
    (added,) = [one for one in rendered.objects if one.name == "x"]
    text = strict_yaml.dump([added.body])
    assert f"registry.example.com/llm/{API}@{OLD}" in text
    assert not re.search(rf"{API}(?!@)", text)


PLACES: dict[str, dict[str, Any]] = {
    "environment value": {"containers": [{"name": "c", "image": API, "env": [{"name": "I", "value": API}]}]},
    "argument": {"containers": [{"name": "c", "image": API, "args": [f"--image={API}"]}]},
    "tag of ours in a command": {"containers": [{"name": "c", "image": API, "command": ["run", f"x/{API}:1"]}]},
    "our registry": {"containers": [{"name": "c", "image": API, "args": ["registry.example.com/llm/other"]}]},
    "foreign image": {"containers": [{"name": "c", "image": API, "args": ["quay.io/argo/exec:v3"]}]},
    "digest": {"containers": [{"name": "c", "image": API, "args": [f"other@{OLD}"]}]},
    "embedded manifest": {"containers": [{"name": "c", "image": API, "args": ["spec:\n  image: nginx\n"]}]},
    "embedded JSON": {"containers": [{"name": "c", "image": API, "args": ['{"image": "nginx"}']}]},
}


@pytest.mark.parametrize("place", PLACES)
def test_refuses_what_looks_like_an_image_elsewhere(checkout: Checkout, place: str) -> None:
    checkout.add(strict_yaml.dump([kinds(PLACES[place])["Deployment"]]))
    found = [text for text in checkout.findings() if "looks like an image" in text]
    assert len(found) == 1
    assert "spec.template.spec.containers[0]." in found[0]


@pytest.mark.parametrize(
    "body",
    [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "x", "namespace": "n"},
            "data": {"a": f"image: {API}\n"},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "x", "namespace": "n", "annotations": {"kubectl/last": f'{{"image":"{API}:1"}}'}},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {"name": "x", "namespace": "n"},
            "revision": 1,
            "data": {"spec": {"template": {"spec": POD}}},
        },
    ],
    ids=["text in a ConfigMap", "annotation", "free-form object"],
)
def test_refuses_images_that_no_schema_accounts_for(checkout: Checkout, body: dict[str, Any]) -> None:
    checkout.add(strict_yaml.dump([body]))
    assert any("looks like an image" in text for text in checkout.findings())


def test_a_ceph_image_is_a_false_friend(checkout: Checkout) -> None:
    volume = {"name": "v", "rbd": {"image": "disk-1", "monitors": ["m"]}}
    checkout.add(strict_yaml.dump([kinds({**POD, "volumes": [volume]})["Pod"]]))
    rendered, found = checkout.check()
    assert not any("disk-1" in finding.text() for finding in found)
    assert [one.body["spec"]["volumes"][0] for one in rendered.objects if one.name == "x"] == [volume]


def test_a_written_status_is_refused(checkout: Checkout) -> None:
    checkout.add(strict_yaml.dump([{**kinds(POD)["Pod"], "status": {"phase": "Running"}}]))
    assert any("a status is written" in text for text in checkout.findings())


@pytest.mark.parametrize("version", schema.versions())
def test_every_field_of_the_schema_that_could_name_an_image_is_classified(version: str) -> None:
    """A new Kubernetes version with a new image-bearing field fails here, not in a cluster."""
    known = pin.IMAGE_FIELDS | pin.FALSE_FRIENDS
    # Written by the cluster (a status is refused), names of Secrets, policies, and the object around `reference`.
    others = {
        ("ContainerStatus", "image"),
        ("ContainerStatus", "imageID"),
        ("NodeStatus", "images"),
        ("NodeSystemInfo", "osImage"),
        ("ContainerImage", "names"),
        ("PodSpec", "imagePullSecrets"),
        ("ServiceAccount", "imagePullSecrets"),
        ("Container", "imagePullPolicy"),
        ("EphemeralContainer", "imagePullPolicy"),
        ("Volume", "image"),
        ("ImageVolumeSource", "pullPolicy"),
        ("VolumeStatus", "image"),
        ("ImageVolumeStatus", "imageRef"),
    }
    for name, definition in schema.schema(version).definitions.items():
        short = name.rsplit(".", 1)[1]
        for field, node in definition.get("properties", {}).items():
            described = node.get("description", "").lower()
            speaks = re.search(r"image name|oci object|image reference|image or artifact", described)
            if "image" in field.lower() or (speaks and "string" in str(node.get("type"))):
                assert (short, field) in known | others, f"{version}: {short}.{field}: {described[:200]}"


def test_the_walk_reaches_every_string(checkout: Checkout) -> None:
    def strings(value: Any) -> int:
        if isinstance(value, dict):
            return sum(map(strings, value.values()))
        if isinstance(value, list):
            return sum(map(strings, value))
        return isinstance(value, str)

    objects, _ = manifests.load([checkout.manifests])
    for one in objects:
        walk = schema.schema("1.32").walk(one)
        values = [text for text in walk.texts if text.path and _at(one, text.path) == text.value]
        assert len(values) == strings(one.body)


def _at(one: Manifest, path: tuple[str | int, ...]) -> Any:
    here: Any = one.body
    for step in path:
        here = here[step]
    return here
