"""The verdicts of the corpus are those of a real API server: each object is sent to it, and nothing stays there."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from k8s.single_node.places import HOST_LINK
from tests.k8s import corpus

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="a cluster needs root"),
    pytest.mark.skipif(Path("/sys/class/net", HOST_LINK).exists(), reason="one runs already: `invoke cluster --down` ends it"),
]


def test_the_server_says_of_every_object_what_the_corpus_says(bare: list[str]) -> None:
    dry = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"]
    wrong = []
    for case in corpus.cases():
        found = subprocess.run([*bare, *dry], input=json.dumps(case.body), capture_output=True, text=True, check=False)
        while "--validate=false" in found.stderr:
            # It could not be asked for its schema, which a busy server leaves out for a moment: no verdict.
            found = subprocess.run([*bare, *dry], input=json.dumps(case.body), capture_output=True, text=True, check=False)
        if (found.returncode == 0) is not case.server:
            wrong.append(f"{case.name}: {'taken' if found.returncode == 0 else found.stderr.strip()}")
    assert wrong == []
    # Dry runs leave nothing.
    left = subprocess.run(
        [*bare, "-n", corpus.SPACE, "get", "pods,deployments,jobs", "-o", "name"], capture_output=True, check=True
    )
    assert left.stdout == b""
