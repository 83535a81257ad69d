"""The verdicts of the corpus are those of a real API server: each object is sent to it, and nothing stays there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8s.single_node import cluster, programs
from k8s.single_node.places import HOST_LINK, Home
from tests.k8s import corpus

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="a cluster needs root"),
    pytest.mark.skipif(Path("/sys/class/net", HOST_LINK).exists(), reason="one runs already: `invoke cluster --down` ends it"),
]


@pytest.fixture(scope="module")
def kubectl() -> Iterator[list[str]]:
    folder = tempfile.mkdtemp(prefix="pinwheel-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PINWHEEL_STATE", folder)
        try:
            cluster.up()
            command = [str(programs.located().kubectl), f"--kubeconfig={Home.of_this_machine().kubeconfig}"]
            subprocess.run([*command, "create", "namespace", corpus.SPACE], check=True, capture_output=True)
            # The account that every pod has by default is made by a controller, a moment after the namespace.
            wait = ["-n", corpus.SPACE, "wait", "--for=create", "serviceaccount/default", "--timeout=60s"]
            subprocess.run([*command, *wait], check=True, capture_output=True)
            yield command
        finally:
            cluster.down()
            shutil.rmtree(folder)


def test_the_server_says_of_every_object_what_the_corpus_says(kubectl: list[str]) -> None:
    dry = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"]
    wrong = []
    for case in corpus.cases():
        found = subprocess.run([*kubectl, *dry], input=json.dumps(case.body), capture_output=True, text=True, check=False)
        while "--validate=false" in found.stderr:
            # It could not be asked for its schema, which a busy server leaves out for a moment: no verdict.
            found = subprocess.run([*kubectl, *dry], input=json.dumps(case.body), capture_output=True, text=True, check=False)
        if (found.returncode == 0) is not case.server:
            wrong.append(f"{case.name}: {'taken' if found.returncode == 0 else found.stderr.strip()}")
    assert wrong == []
    # Dry runs leave nothing.
    left = subprocess.run(
        [*kubectl, "-n", corpus.SPACE, "get", "pods,deployments,jobs", "-o", "name"], capture_output=True, check=True
    )
    assert left.stdout == b""
