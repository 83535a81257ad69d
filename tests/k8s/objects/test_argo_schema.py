"""Argo's kinds: their schema and where it is from, and a right set that is taken."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

from common import paths
from common.files import sha256_file
from k8s.objects import argo_schema, manifests, schema, strict_yaml
from k8s.objects.manifests import Manifest
from k8s.single_node import programs
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


def locked_argo() -> tuple[str, str]:
    """Version and hash (go.sum's h1) of the module of Argo that the cluster runs."""
    sums = (paths.LOCKFILES / "single-node" / "argo" / "go.sum").read_text()
    found = re.search(r"^github\.com/argoproj/argo-workflows/v4 (v\S+) (h1:\S+)$", sums, re.MULTILINE)
    assert found
    return found[1], found[2]


def test_every_kind_has_its_schema_and_no_other_kind_of_argos_has() -> None:
    found = argo_schema.load()
    known = {name.rsplit(".", 1)[1] for name, one in found.items() if "x-kubernetes-group-version-kind" in one}
    assert known == set(argo_schema.KINDS)
    assert any(
        "no schema for" in one
        for one in walked("apiVersion: argoproj.io/v1alpha1\nkind: WorkflowEventBinding\nmetadata: {name: a}\n")
    )


def test_the_schema_is_of_the_module_that_the_cluster_is_built_from() -> None:
    """A new version in the lock fails here until its schema is taken: docs/adr/0018."""
    kept = f"{locked_argo()[0]} {sha256_file(argo_schema.FILE)}"
    assert kept == "v4.0.5 sha256:98df6174460702d2c178cd54c6fb3f597985c9969bb5ae79ad7e55e2d47c0b39"


@pytest.mark.host
def test_the_schema_is_the_modules_file_byte_for_byte(tmp_path: Path) -> None:
    """Go itself checks the module against the hash of go.sum."""
    go = programs.unpack_toolchain(tmp_path / "toolchain")
    version, hashed = locked_argo()
    folder = tmp_path / "argo"
    shutil.copytree(paths.LOCKFILES / "single-node" / "argo", folder)
    cache = {"GOMODCACHE": str(tmp_path / "modules"), "GOFLAGS": "-modcacherw", "GOSUMDB": "off", "GOTOOLCHAIN": "local"}
    fetch = [str(go), "mod", "download", "-json", f"github.com/argoproj/argo-workflows/v4@{version}"]
    done = subprocess.run(fetch, cwd=folder, env={**os.environ, **cache}, capture_output=True, check=True)
    module = json.loads(done.stdout)
    assert module["Sum"] == hashed
    assert Path(module["Dir"], "api/jsonschema/schema.json").read_bytes() == argo_schema.FILE.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("archive: {none: {}}", "archive: {none: {level: 1}}", "none.level: unknown field of NoneStrategy"),
        ("  entrypoint: ", "  entrypont: ", "entrypont: unknown field of WorkflowSpec: did you mean entrypoint?"),
        ("  entrypoint: ", "  metrics: {}\n  entrypoint: ", "metrics.prometheus: required and missing"),
    ],
)
def test_fields_that_argo_does_not_know_or_needs_are_named(old: str, new: str, said: str) -> None:
    text = (
        "apiVersion: argoproj.io/v1alpha1\nkind: WorkflowTemplate\nmetadata: {name: a, namespace: b}\nspec:\n"
        "  entrypoint: main\n  templates:\n    - name: main\n      container: {image: i}\n"
        "      outputs: {artifacts: [{name: o, path: /o, archive: {none: {}}}]}\n"
    )
    assert walked(text) == []
    assert any(said in one for one in walked(text.replace(old, new)))


def test_types_of_kubernetes_are_those_of_the_version_aimed_at() -> None:
    image_volume = FLOW.replace("persistentVolumeClaim: {claimName: work}", "image: {reference: x}")
    assert walked(image_volume, schema.versions()[-1]) == []
    assert any("volumes[0].image: unknown field of Volume" in text for text in walked(image_volume, "1.30"))


def test_a_field_whose_type_an_old_kubernetes_lacks_is_unknown_there() -> None:
    text = FLOW.replace("        command: [bash, -e]\n", "        command: [bash, -e]\n        resizePolicy: []\n")
    assert walked(text) == []
    assert any("resizePolicy: unknown field of ScriptTemplate" in found for found in walked(text, "1.25"))


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
