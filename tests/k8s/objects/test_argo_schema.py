"""Argo's kinds: their schema and where it is kept, and a right set that is taken."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from k8s.objects import argo_schema, manifests, schema, strict_yaml
from k8s.objects.manifests import Manifest
from tests.k8s.conftest import API, NEW, OLD, Checkout
from tests.k8s.rules.flows import AROUND, FLOW, RUN, TRAIN, checked, findings

pytestmark = pytest.mark.slow


def walked(text: str, version: str = "1.32") -> list[str]:
    (one,) = manifests.parse(text, "f.yaml")
    assert isinstance(one, Manifest)
    return [finding.text() for finding in schema.schema(version).walk(one).findings]


def test_a_right_set_is_clean(checkout: Checkout) -> None:
    assert findings(checkout, AROUND, FLOW, RUN) == []


@pytest.mark.parametrize("version", schema.versions())
def test_it_fits_every_kubernetes_version(version: str) -> None:
    assert walked(FLOW, version) == []


def test_the_schema_says_of_which_argo_it_is() -> None:
    found = argo_schema.load()
    assert found.version == "4.0.5"
    assert {f"io.argoproj.workflow.v1alpha1.{kind}" for kind in argo_schema.KINDS} <= found.definitions.keys()


def test_types_of_kubernetes_are_those_of_the_version_aimed_at() -> None:
    image_volume = FLOW.replace("persistentVolumeClaim: {claimName: work}", "image: {reference: x}")
    assert walked(image_volume, schema.versions()[-1]) == []
    assert any("volumes[0].image: unknown field of Volume" in text for text in walked(image_volume, "1.30"))


def test_a_field_whose_type_an_old_kubernetes_lacks_is_unknown_there() -> None:
    text = FLOW.replace("        command: [bash, -e]\n", "        command: [bash, -e]\n        resizePolicy: []\n")
    assert walked(text) == []
    assert any("resizePolicy: unknown field of ScriptTemplate" in found for found in walked(text, "1.25"))


def test_the_schema_is_kept_and_made_again_when_it_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = argo_schema.load()
    monkeypatch.setenv("PINWHEEL_CACHE", str(tmp_path))
    assert argo_schema.load() == first
    (file,) = (tmp_path / "argo").iterdir()
    kept = file.read_bytes()
    monkeypatch.setattr(argo_schema, "_from_hera", lambda: pytest.fail("it was kept"))
    assert argo_schema.load() == first
    monkeypatch.undo()
    monkeypatch.setenv("PINWHEEL_CACHE", str(tmp_path))
    for damaged in (b"", b"\xff\n{}", kept[:-1], kept.replace(b"ScriptTemplate", b"ScriptTemplatf"), b"{}"):
        file.write_bytes(damaged)
        assert argo_schema.load() == first
        assert file.read_bytes() == kept


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PINWHEEL_CACHE", str(tmp_path / "file"))
    assert argo_schema.load().version


def test_what_is_sent_is_pinned_everywhere_and_the_same_each_time(checkout: Checkout) -> None:
    rendered, _ = checked(checkout, AROUND, FLOW, RUN)
    text = rendered.text()
    assert checked(checkout, AROUND, FLOW, RUN)[0].text() == text
    for name, digest in ((TRAIN, NEW), (API, OLD)):
        assert text.count(name) == text.count(f"registry.example.com/llm/{name}@{digest}")
    again, found = checked(checkout, text, "", "")
    assert found == ()
    assert again.text() == text


def test_the_gpu_step_is_bound_to_nodes_and_the_others_are_not(checkout: Checkout) -> None:
    rendered, _ = checked(checkout, AROUND, FLOW)
    (flow,) = [one for one in rendered.objects if one.kind == "WorkflowTemplate"]
    bound = {one["name"]: "affinity" in one for one in flow.body["spec"]["templates"]}
    assert [name for name, has in bound.items() if has] == ["make"]
    assert schema.schema("1.32").walk(flow).findings == []
    assert [placement.title for placement in rendered.placements] == ["WorkflowTemplate flows/flow"]


def test_a_gpu_step_keeps_the_affinity_of_the_workflow_beside_the_nodes(checkout: Checkout) -> None:
    spread = "{podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone}]}}"
    rendered, found = checked(checkout, AROUND, FLOW.replace("  onExit: tidy\n", f"  onExit: tidy\n  affinity: {spread}\n"))
    assert found == ()
    (flow,) = [one for one in rendered.objects if one.kind == "WorkflowTemplate"]
    (make,) = [one for one in flow.body["spec"]["templates"] if one["name"] == "make"]
    assert set(make["affinity"]) == {"podAntiAffinity", "nodeAffinity"}


def test_a_gpu_step_whose_image_is_a_parameter_is_bound_to_nodes_that_can_run_it(checkout: Checkout) -> None:
    text = FLOW.replace(
        f"        image: {TRAIN}\n        command: [bash, -c]",
        '        image: "{{workflow.parameters.tool}}"\n        command: [bash, -c]',
    )
    rendered, found = checked(checkout, AROUND, text)
    assert found == ()
    assert len(rendered.placements) == 1


def test_embedded_manifests_keep_what_argo_fills_in_and_stay_yaml(checkout: Checkout) -> None:
    rendered, _ = checked(checkout, AROUND, FLOW)
    (flow,) = [one for one in rendered.objects if one.kind == "WorkflowTemplate"]
    (sent,) = [one["resource"]["manifest"] for one in flow.body["spec"]["templates"] if "resource" in one]
    ((job, _),) = strict_yaml.documents(sent, "f")  # type: ignore[misc]  # readable
    assert job["metadata"]["name"] == "job-{{workflow.name}}"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["{{workflow.name}}"]
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == f"registry.example.com/llm/{API}@{OLD}"


def test_only_the_document_with_an_image_is_changed(checkout: Checkout) -> None:
    more = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: flows}\ndata: {a: '{{workflow.uid}}'}\n---\n"
    two = FLOW.replace("          apiVersion: batch/v1\n", textwrap.indent(f"{more}apiVersion: batch/v1\n", " " * 10))
    rendered, found = checked(checkout, AROUND, two)
    assert found == ()
    (flow,) = [one for one in rendered.objects if one.kind == "WorkflowTemplate"]
    (sent,) = [one["resource"]["manifest"] for one in flow.body["spec"]["templates"] if "resource" in one]
    assert [one[0]["kind"] for one in strict_yaml.documents(sent, "f") if isinstance(one, tuple)] == ["ConfigMap", "Job"]


def test_a_patch_in_json_is_pinned(checkout: Checkout) -> None:
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    patch = json.dumps({"initContainers": [{"name": "more", "image": API, "securityContext": secure}]})
    old = "        containers:\n          - name: main\n            resources: {limits: {memory: 4Gi}}\n"
    text = FLOW.replace(old, f"        {patch}\n")
    assert patch in text
    rendered, found = checked(checkout, AROUND, text)
    assert found == ()
    assert rendered.text().count(f"{API}@{OLD}") == 3


@pytest.mark.parametrize("kind", ["Workflow", "ClusterWorkflowTemplate", "CronWorkflow"])
def test_every_kind_is_checked_and_pinned(checkout: Checkout, kind: str) -> None:
    text = FLOW.replace("kind: WorkflowTemplate", f"kind: {kind}").replace(
        "- name: version\n", "- name: version\n        value: v\n"
    )
    if kind == "ClusterWorkflowTemplate":
        text = text.replace("{name: flow, namespace: flows}", "{name: flow}")
    if kind == "CronWorkflow":
        head, _, spec = text.partition("spec:\n")
        text = head + 'spec:\n  schedules: ["@daily"]\n  workflowSpec:\n' + "".join(f"  {line}\n" for line in spec.splitlines())
    rendered, found = checked(checkout, AROUND, text)
    assert [one.text() for one in found] == []
    assert len([pin for pin in rendered.pins if kind in pin.title]) == 9
    assert len(rendered.placements) == 1
    spoiled = text.replace("runAsNonRoot: true\n", "runAsNonRoot: false\n", 1)
    assert bool(findings(checkout, AROUND, spoiled)) == (kind != "ClusterWorkflowTemplate")


def test_quotas_count_the_largest_pod_of_a_workflow(checkout: Checkout) -> None:
    quota = "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: q, namespace: flows}\n"
    quota += "spec: {hard: {requests.nvidia.com/gpu: '%s'}}\n"
    assert findings(checkout, AROUND, FLOW, quota % 1) == []
    assert any(
        "the set may ask for 1 (WorkflowTemplate flows/flow 1)" in one for one in findings(checkout, AROUND, FLOW, quota % 0)
    )
