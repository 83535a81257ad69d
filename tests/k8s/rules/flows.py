"""A small set with a workflow of every sort that is right; tests spoil it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from common import paths
from k8s.envs import environment
from k8s.envs.settings import Settings
from k8s.objects.findings import Finding
from k8s.prepare.checked import check, locked_images
from k8s.prepare.rendered import RenderedSet
from tests.k8s.conftest import Checkout

TRAIN = "llama-factory-train"

_FOLDER = Path(__file__).with_name("flows")
# A namespace and what its pods need; a workflow of every sort that is right; a run of it.
AROUND, FLOW, RUN = ((_FOLDER / f"{name}.yaml").read_text() for name in ("around", "flow", "run"))
# The workflow of the specification that the project started from, and its namespace as every one is here.
ORIGINAL = (_FOLDER / "original.yaml").read_text()


def checked(checkout: Checkout, *texts: str) -> tuple[RenderedSet, tuple[Finding, ...]]:
    """Check these manifests alone, each a file of its own."""
    folder = paths.ROOT / "flows"
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text)
    env = dataclasses.replace(environment.load("staging"), settings=Settings())  # They are about the project's own set.
    return check([folder], env, locked_images(required=False))


def findings(checkout: Checkout, *texts: str) -> list[str]:
    """What is wrong with them."""
    return [finding.text() for finding in checked(checkout, *texts)[1]]
