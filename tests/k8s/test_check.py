"""The good set is clean, and how findings are told."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import LockError, PolicyError, UsageError
from k8s import check
from k8s.envs import environment
from k8s.objects import manifests, schema
from k8s.objects.quantity import quantity
from k8s.prepare import gpu_nodes, pin
from k8s.rules import all as rules
from lockfiles import images_lock
from tests.k8s.conftest import API, NEW, OLD, Checkout
from tests.k8s.objects.test_schema import good, places, spoiled

pytestmark = pytest.mark.slow

# How the registry is reached, told in two namespaces; and of a preflight the Deployment, two ConfigMaps and a NetworkPolicy.
MADE = 2 + 4


@pytest.mark.parametrize("env", ["rendered", "staging", "production"])
def test_the_good_set_is_clean_in_every_environment(checkout: Checkout, env: str) -> None:
    rendered, found = checkout.check(env)
    assert [finding.text() for finding in found] == []
    assert len(rendered.objects) == len(manifests.load([checkout.manifests])[0]) + MADE


def test_optional_references_and_what_is_always_there_are_no_findings(checkout: Checkout) -> None:
    checkout.add(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: ns}\n"
        f"spec:\n  serviceAccountName: default\n  containers:\n    - name: c\n      image: {API}\n"
        "      envFrom: [{secretRef: {name: absent, optional: true}}]\n"
        "  volumes: [{name: ca, configMap: {name: kube-root-ca.crt}}]\n"
    )
    assert checkout.findings() == []


def test_all_findings_come_at_once_sorted_by_file_and_line(checkout: Checkout) -> None:
    checkout.edit("service.yaml", "targetPort: http", "targetPort: web")
    checkout.edit("hpa.yaml", "minReplicas: 1", "minReplicas: 5")
    checkout.edit("deployment.yaml", "maxSurge: 0", "maxSurge: 1")
    found = checkout.check()[1]
    assert [one.file.rsplit("/", 1)[1] for one in found] == ["deployment.yaml", "hpa.yaml", "service.yaml"]
    assert list(found) == sorted(found)


def test_run_check_prints_every_finding_and_refuses(checkout: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    checkout.edit("service.yaml", "targetPort: http", "targetPort: web")
    checkout.edit("hpa.yaml", "minReplicas: 1", "minReplicas: 5")
    with pytest.raises(PolicyError, match="2 findings in 2 files") as caught:
        check.run_check([str(checkout.manifests)], "staging")
    assert caught.value.exit_code == 15
    assert "minReplicas 5 is more than" in capsys.readouterr().err


def test_run_check_of_a_clean_file_says_what_would_run(checkout: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    check.run_check([str(checkout.manifests)], "staging")
    said = capsys.readouterr().out
    assert f"registry.example.com/llm/{API}@{OLD}" in said.replace("\n", "")
    number = len(manifests.load([checkout.manifests])[0]) + MADE
    assert f"{number} objects are clean for staging (Kubernetes 1.32)" in said


def test_a_file_without_an_object_is_a_usage_error(checkout: Checkout) -> None:
    (checkout.root / "empty.yaml").write_text("# nothing here yet\n---\n# nor here\n")
    with pytest.raises(UsageError, match="no object in these files"):
        check.run_check([str(checkout.root / "empty.yaml")], "staging")
    with pytest.raises(UsageError, match="nothing to check"):
        check.run_check([], "staging")


def test_what_an_environment_sets_need_not_be_in_somebody_elses_manifests(checkout: Checkout) -> None:
    file = checkout.root / "k8s" / "envs" / "staging.yaml"
    file.write_text(file.read_text() + "sizes: {llm-training/training-work: 1Gi}\n")
    (checkout.root / "other.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n")
    check.run_check([str(checkout.root / "other.yaml")], "staging")


def test_check_works_before_anything_was_pushed_but_not_with_an_edited_lock(checkout: Checkout) -> None:
    images_lock.path().unlink()
    with pytest.raises(PolicyError):
        check.run_check([str(checkout.manifests)], "staging")
    images_lock.path().write_text("format = 99\n")
    with pytest.raises(LockError):
        check.run_check([str(checkout.manifests)], "staging")


def test_an_absent_path_and_an_unknown_environment_are_usage_errors(checkout: Checkout) -> None:
    with pytest.raises(UsageError, match="no such file"):
        check.run_check([str(checkout.root / "absent.yaml")], "staging")
    with pytest.raises(UsageError, match="no environment"):
        check.run_check([str(checkout.manifests)], "qa")


@given(st.data())
@settings(deadline=None, max_examples=50)
def test_no_spoiled_set_makes_the_rules_crash(data: st.DataObject) -> None:
    """Rules look at what the schema check may have refused already: any value may stand anywhere."""
    objects = list(good())
    number = data.draw(st.integers(0, len(objects) - 1))
    path = data.draw(st.sampled_from([path for path in places(objects[number].body) if len(path) > 1]))
    value: Any = data.draw(
        st.sampled_from([None, 5, -1.5, True, "text", "", [], ["x"], [[]], {}, {"a": []}, [None], [{"name": {}}]])
    )
    objects[number] = dataclasses.replace(objects[number], body=spoiled(objects[number].body, path, value))
    env = environment.load("rendered")
    walks = [schema.schema(env.kubernetes).walk(one) for one in objects]
    pinned, pins, unpinned = pin.pin(walks, env, {"llama-factory-train": NEW, f"{API}-cpu": OLD})
    _, _, nowhere = gpu_nodes.place(pinned, pins, env, {})
    for finding in (*unpinned, *nowhere, *rules.check(walks, env)):
        assert finding.text()


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("500m", 0.5), ("1Ki", 1024), ("2k", 2000), ("1.5Gi", 1.5 * 1024**3), ("1e3", 1000), ("5E", 5e18), ("-1", -1)],
)
def test_quantities_are_read_as_kubernetes_does(text: str, number: float) -> None:
    found = quantity(text)
    assert found is not None
    assert float(found) == number


@pytest.mark.parametrize("text", ["", "1GB", "one", "1 Gi", "0x1", None])
def test_what_is_no_quantity_is_none(text: str | None) -> None:
    assert quantity(text) is None
