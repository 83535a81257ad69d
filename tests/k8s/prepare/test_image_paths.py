"""Every place where Kubernetes pulls an image, in every version there is a schema for, is pinned; nothing else is."""

from __future__ import annotations

import re
from typing import Any

import pytest

from k8s.envs import environment
from k8s.objects import argo_schema, manifests, schema, strict_yaml
from k8s.objects.manifests import Manifest
from k8s.prepare import pin
from k8s.prepare.image_texts import FALSE_FRIENDS, IMAGE_FIELDS
from tests.k8s.conftest import API, OLD, Checkout

pytestmark = pytest.mark.slow

TASKS = ("steps[*][*]", "dag.tasks[*]")
HOLDERS = ("templateDefaults", "templates[*]")
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
    known = IMAGE_FIELDS | FALSE_FRIENDS
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
        ("ContainerNode", "imagePullPolicy"),
        ("EphemeralContainer", "imagePullPolicy"),
        ("ScriptTemplate", "imagePullPolicy"),
        ("UserContainer", "imagePullPolicy"),
        ("WorkflowSpec", "imagePullSecrets"),
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


# Every path at which an image is named, in Kubernetes' kinds and in Argo's. `*` is each item of a list.
IN_A_POD = {
    "containers[*].image",
    "ephemeralContainers[*].image",
    "initContainers[*].image",
    "volumes[*].image.reference",
}
IN_A_TEMPLATE = {
    "container.image",
    "containerSet.containers[*].image",
    "initContainers[*].image",
    "resource.manifest",
    "script.image",
    "sidecars[*].image",
    "volumes[*].image.reference",
    *(f"podSpecPatch.{path}" for path in IN_A_POD),
}
IN_A_WORKFLOW = {
    "volumes[*].image.reference",
    *(f"podSpecPatch.{path}" for path in IN_A_POD),
    *(f"artifactGC.podSpecPatch.{path}" for path in IN_A_POD),
    *(f"templateDefaults.{path}" for path in IN_A_TEMPLATE),
    *(f"templates[*].{path}" for path in IN_A_TEMPLATE),
    *(f"{holder}.{tasks}.inline.{path}" for path in IN_A_TEMPLATE for tasks in TASKS for holder in HOLDERS),
}
PATHS = {
    **{("v1", "Pod"): {f"spec.{path}" for path in IN_A_POD}},
    **{("v1", "PodTemplate"): {f"template.spec.{path}" for path in IN_A_POD}},
    **{("v1", "ReplicationController"): {f"spec.template.spec.{path}" for path in IN_A_POD}},
    **{
        (api, kind): {f"spec.template.spec.{path}" for path in IN_A_POD}
        for api, kind in (
            ("apps/v1", "DaemonSet"),
            ("apps/v1", "Deployment"),
            ("apps/v1", "ReplicaSet"),
            ("apps/v1", "StatefulSet"),
            ("batch/v1", "Job"),
        )
    },
    ("batch/v1", "CronJob"): {f"spec.jobTemplate.spec.template.spec.{path}" for path in IN_A_POD},
    **{
        (argo_schema.API_VERSION, kind): {f"spec.{path}" for path in IN_A_WORKFLOW}
        for kind in ("ClusterWorkflowTemplate", "Workflow", "WorkflowTemplate")
    },
    (argo_schema.API_VERSION, "CronWorkflow"): {f"spec.workflowSpec.{path}" for path in IN_A_WORKFLOW},
}


def derived(version: str) -> dict[tuple[str, str], set[str]]:
    """The table above as the schema has it: every way from a kind to a field that names an image.

    A definition inside of itself (a template in a task of a template) is gone into once; what it has was counted outside.
    """
    known = schema.schema(version)

    def below(node: dict[str, Any], path: str, owner: str, field: str, inside: tuple[str, ...]) -> set[str]:
        if "$ref" in node:
            full = node["$ref"].rsplit("/", 1)[1]
            if inside.count(full) > (full.endswith(".Template")):
                return set()
            node, owner, inside = known.definitions[full], full.rsplit(".", 1)[1], (*inside, full)
            field = ""
        if (owner, field) in IMAGE_FIELDS or (owner, field) == ("ResourceTemplate", "manifest"):
            return {path}
        if (owner, field) in schema.EMBEDDED:
            return below({"$ref": "#/$defs/io.k8s.api.core.v1.PodSpec"}, path, "", "", inside)
        found = below(node["items"], f"{path}[*]", owner, field, inside) if "items" in node else set()
        for key, item in node.get("properties", {}).items():
            found |= below(item, f"{path}.{key}" if path else key, owner, key, inside)
        return found

    return {
        kind: paths
        for kind, name in known.kinds.items()
        if not kind[1].endswith("List")
        and (paths := {path for path in below({"$ref": f"#/$defs/{name}"}, "", "", "", ()) if not path.startswith("status")})
    }


def test_the_table_of_paths_is_whole() -> None:
    """Another field that names an image, in a new Kubernetes or a new Argo, fails here."""
    found = derived(schema.versions()[-1])
    assert found.keys() == PATHS.keys()
    for kind, paths in PATHS.items():
        assert found[kind] == paths, kind


@pytest.mark.parametrize("version", schema.versions())
def test_no_version_has_a_path_that_is_not_in_the_table(version: str) -> None:
    for kind, paths in derived(version).items():
        assert paths <= PATHS[kind]


@pytest.mark.parametrize("kind", PATHS, ids=lambda kind: kind[1])
def test_an_image_at_each_path_is_pinned(kind: tuple[str, str]) -> None:
    known = schema.schema(schema.versions()[-1])
    env = environment.parse(ENV, "test", "test.yaml")
    for path in sorted(PATHS[kind]):
        body = built(path.replace("[*]", ".0").split("."), API)
        manifest = Manifest("f", {"apiVersion": kind[0], "kind": kind[1], "metadata": {"name": "x"}, **body}, {})
        (done,), pins, refused = pin.pin([known.walk(manifest)], env, {API: OLD})
        assert refused == (), path
        assert [one.written for one in pins] == [API], path
        text = strict_yaml.dump([done.body])
        assert text.count(f"registry.example.com/llm/{API}@{OLD}") == text.count(API) == 1, path
        assert pin.images([done], known.version) == {
            (done.identity, one.path): f"registry.example.com/llm/{API}@{OLD}" for one in pins
        }


ENV = "target: {cluster: {context: c}}\nregistry: registry.example.com/llm\nkubernetes: '1.32'\nproof: none\n"


def built(steps: list[str], value: Any) -> Any:
    """A body with a value at a path, embedded texts made as they are written."""
    if not steps:
        return value
    below = built(steps[1:], value)
    if steps[0] == "0":
        return [below]
    if steps[0] == "manifest":
        below = strict_yaml.dump([workload("v1", "Pod", {"spec": {"containers": [{"name": "c", "image": value}]}})])
    if steps[0] == "podSpecPatch":
        below = strict_yaml.dump([below])
    return {steps[0]: below, **({"action": "create"} if steps[0] == "manifest" else {})}


def test_texts_that_may_hold_manifests_are_looked_into() -> None:
    """A new field of Argo's that takes a manifest or a patch as text fails here."""
    others = {("ResourceTemplate", "action"), ("ResourceTemplate", "mergeStrategy")}  # Words: `apply`, `merge`.
    for name, definition in argo_schema.load().items():
        for field, node in definition.get("properties", {}).items():
            said = f"{field} {node.get('description', '')}".lower()
            if node.get("type") == "string" and re.search(r"manifest|\bpatch", said):
                assert (name.rsplit(".", 1)[1], field) in schema.EMBEDDED | others, f"{name}.{field}: {said[:200]}"


def test_the_walk_reaches_every_string(checkout: Checkout) -> None:
    def strings(value: Any) -> int:
        if isinstance(value, dict):
            return sum(strings(item) for key, item in value.items() if key != "podSpecPatch")  # read as what it holds
        if isinstance(value, list):
            return sum(map(strings, value))
        return isinstance(value, str)

    objects, _ = manifests.load([checkout.manifests])
    for one in objects:
        walk = schema.schema("1.32").walk(one)
        values = [text for text in walk.texts if "podSpecPatch" not in text.path and _at(one, text.path) == text.value]
        assert len(values) == strings(one.body)


def _at(one: Manifest, path: tuple[str | int, ...]) -> Any:
    here: Any = one.body
    for step in path:
        here = here[step]
    return here
