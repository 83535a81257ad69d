"""`invoke test --cluster`: the simulator, named as a real cluster by nothing but a kubeconfig, goes the very same way."""

from __future__ import annotations

from pathlib import Path

import pytest
from invoke.exceptions import Exit

from common.errors import UsageError
from tests import suite
from tests.k8s.simulator import places
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.controller import Trouble

IMAGES = ",".join(f"registry.example.com/pause@sha256:{letter * 64}" for letter in "56")


@pytest.mark.host
@pytest.mark.skipif(bool(places.named()), reason="would name a cluster within a named one")
def test_the_scenarios_run_on_a_cluster_named_by_its_context_and_clean_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with ApiServer() as api:
        api.troubles, api.silent_failure = {places.ABSENT: Trouble("ErrImagePull", "not found")}, True
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig", "far-away")))
        monkeypatch.setenv("KUBECACHEDIR", str(tmp_path / "kube-cache"))
        # One scenario is enough to see that the way there is right.
        said = suite.run_cluster("far-away", IMAGES, only="rolled_out_and_rolled_back")
        assert not [key for key in api.objects if key[1] == "Namespace"]
        made = [path for method, path in api.requests if method == "PATCH" and "/namespaces/pinwheel-test-" in path]
        assert made
    assert said == "the scenarios passed on the cluster of context far-away"
    out = capfd.readouterr().out
    assert "1 passed" in out
    assert "need faults that only the simulator has: left out" in out


def test_an_image_that_is_not_named_by_digest_is_refused() -> None:
    with pytest.raises(UsageError, match="two images by digest"):
        suite.run_cluster("far-away", "a:1,b:2")


@pytest.mark.host
def test_a_scenario_that_fails_fails_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ApiServer() as api:
        api.bad_images, api.silent_failure = {"5" * 64}, False
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig", "far-away")))
        monkeypatch.setenv("KUBECACHEDIR", str(tmp_path / "kube-cache"))
        with pytest.raises(Exit):
            suite.run_cluster("far-away", IMAGES, only="rolled_out_and_rolled_back")
