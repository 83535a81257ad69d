"""The ConfigMaps that bring the programs into pods."""

from __future__ import annotations

import ast
import sys

import pytest
import yaml

from common import paths
from k8s import tools
from k8s.tools import SETS, ToolSet

_ALLOWED = {*sys.stdlib_module_names, "yaml"}


@pytest.mark.parametrize("one", SETS, ids=lambda one: one.name)
def test_the_manifest_is_what_the_programs_are(one: ToolSet) -> None:
    assert one.file.read_text() == tools.text(one), "run `python -m k8s.tools`"


@pytest.mark.parametrize("one", SETS, ids=lambda one: one.name)
def test_a_pod_finds_the_very_same_text(one: ToolSet) -> None:
    body = yaml.safe_load(tools.text(one))
    assert body["metadata"]["name"] == one.name
    assert body["metadata"]["namespace"] == one.namespace
    assert {f"{name}.py" for name in one.programs} <= set(body["data"])
    for name, text in body["data"].items():
        assert text == (paths.K8S / "pipeline" / name).read_text()


@pytest.mark.parametrize("one", SETS, ids=lambda one: one.name)
def test_it_stays_far_below_what_kubernetes_takes(one: ToolSet) -> None:
    assert len(tools.text(one).encode()) < tools.MOST


@pytest.mark.parametrize("one", SETS, ids=lambda one: one.name)
def test_the_programs_import_what_an_image_has_and_each_other(one: ToolSet) -> None:
    """Imports for the type checker alone do not count: they are never run."""
    names = tools.needed(one.programs)
    for name in names:
        tree = ast.parse((paths.K8S / "pipeline" / f"{name}.py").read_text())
        checked = {id(sub) for node in tree.body if isinstance(node, ast.If) for part in node.body for sub in ast.walk(part)}
        for node in ast.walk(tree):
            if id(node) in checked or not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for module in found:
                assert module.partition(".")[0] in {*_ALLOWED, *names}, (name, module)


def test_the_inference_pod_gets_nothing_that_could_change_the_cluster() -> None:
    (one,) = [one for one in SETS if one.name == "model-tools"]
    assert not {"cluster", "promote", "register"} & set(tools.needed(one.programs))
