"""A small server of a model on the cluster of this machine, for all tests that break something around it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from common import paths
from k8s.single_node import cluster, namespaces, programs
from k8s.single_node.places import Home
from tests.k8s import corpus
from tests.k8s.single_node import light_image
from tests.k8s.single_node.served import NAMESPACE, Served
from tests.waiting import eventually


@pytest.fixture(scope="module")
def bare() -> Iterator[list[str]]:
    """A cluster of its own with nothing in it but the namespace of the corpus; the start of kubectl's command line."""
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


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The small server, deployed; on a cluster that runs already, or on one made for this."""
    ours = namespaces.running(Home.of_this_machine()) is None
    root = tmp_path_factory.mktemp("checkout")
    try:
        cluster.up("policies,metrics")
        if not light_image.built():
            pytest.skip("the registry of this machine holds no image that was built: `invoke build --cpu push`")
        images = light_image.push(2)
        with pytest.MonkeyPatch.context() as patch:
            for name, place in (("ROOT", root), ("K8S", root / "k8s"), ("LOCKFILES", root / "lockfiles")):
                patch.setattr(paths, name, place)
            patch.setenv("PINWHEEL_DIST", str(root / "dist"))
            one = Served(root, (images[0], images[1]))
            space = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n"
            # A run that was killed left its own, and a record that nobody here signed.
            one.kubectl.delete(space)
            one.trust()
            yield one
            one.kubectl.delete(space)
    finally:
        if ours:
            cluster.down()


@pytest.fixture
def running(served: Served) -> Served:
    """It serves the first image and the first model."""
    served.say()
    served.go()
    eventually(served.answers, "the server answers")
    return served
