"""Recorded sets are read strictly, whoever reads them: a put-back, a prune and a rollback refuse what was edited."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from common.errors import DeployNotRolledBackError, DeployRolledBackError
from k8s import rollback
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget
from k8s.rollouts import release
from k8s.rollouts.kubectl import Kubectl
from tests.k8s.conftest import API, NEW, OLD, Checkout
from tests.k8s.rollouts.test_prune import leave, names
from tests.k8s.simulator.apiserver import ApiServer
from tests.k8s.simulator.steps import BRIEF, NAME, go, image, record, running, states

pytestmark = pytest.mark.host


ELSEWHERE = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: owned, namespace: kube-system}\n"
MINER = f"""---
apiVersion: v1
kind: Pod
metadata: {{name: owned, namespace: llm-inference}}
spec:
  containers: [{{name: c, image: docker.io/attacker/miner@{OLD}, securityContext: {{privileged: true}}}}]
"""


def forge(change: Callable[[str], str]) -> None:
    """Edit the set of the newest release as somebody would who has the deploy key: digest and signature fit."""
    history = record()
    last = history.releases[-1]
    text = change(history.sets[last.set])
    forged = dataclasses.replace(last, set=release.digest_of(text))
    changed = dataclasses.replace(history, releases=(*history.releases[:-1], forged), sets={forged.set: text})
    release.write(Kubectl(ClusterTarget("staging"), BRIEF), environment.load("staging"), changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(f"@{OLD}", ":latest"), "which is no digest"),
        (lambda text: text + "---\nkind: ConfigMap\n", "apiVersion missing"),
        (lambda text: text + ELSEWHERE, "ConfigMap kube-system/owned is in a namespace that the set in git has not"),
        (lambda text: text + MINER, "today's rules refuse the set"),
    ],
    ids=["tag", "unreadable", "other namespace", "privileged"],
)
def test_an_edited_set_is_not_put_back_and_that_is_said(
    checkout: Checkout, server: ApiServer, change: Callable[[str], str], message: str
) -> None:
    go()
    forge(change)
    checkout.lock({API: NEW})
    server.bad_images = {NEW}
    with pytest.raises(DeployNotRolledBackError) as caught:
        go()
    line = caught.value.line()
    assert "release 1" in line
    assert "is not put back, as its set cannot be used: " in line
    assert message in line
    assert server.image() == image(NEW)
    assert states() == [(1, "running"), (2, "half done")]


def test_nothing_is_pruned_on_the_word_of_an_edited_record(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(checkout)
    forge(lambda text: text + "---\nkind: ConfigMap\n")
    capsys.readouterr()
    go(prune=True)
    assert "what earlier releases left there cannot be told: the set in the release record was edited" in " ".join(
        capsys.readouterr().err.split()
    )
    assert names(server) >= {"extra", "zweites"}
    assert running(server) == image(OLD)


TOOLS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: model-tools, namespace: llm-inference, labels: {app.kubernetes.io/part-of: pinwheel}}
data:
  fetch.py: |
    print("fetch")
"""
MOUNT = "configMap: {name: model-tools, defaultMode: 0555}"


def with_tools(checkout: Checkout) -> None:
    """The set as releases had it whose programs of pods lay in a ConfigMap: one more volume, and what it mounts."""
    file = checkout.manifests / "inference/deployment.yaml"
    text = file.read_text()
    assert "\n      volumes:\n" in text
    file.write_text(text.replace("\n      volumes:\n", f"\n      volumes:\n        - name: old-tools\n          {MOUNT}\n", 1))
    checkout.add(TOOLS)


def without_tools(checkout: Checkout) -> None:
    file = checkout.manifests / "inference/deployment.yaml"
    file.write_text(file.read_text().replace(f"        - name: old-tools\n          {MOUNT}\n", ""))
    (checkout.manifests / "added.yaml").unlink()


def mounts(server: ApiServer) -> bool:
    volumes = server.body("Deployment", NAME)["spec"]["template"]["spec"]["volumes"]
    return any(volume.get("configMap", {}).get("name") == "model-tools" for volume in volumes)


def test_a_release_that_mounts_the_old_tools_is_put_back_with_them(checkout: Checkout, server: ApiServer) -> None:
    with_tools(checkout)
    go()
    without_tools(checkout)
    checkout.lock({API: NEW})
    server.bad_images = {NEW}
    with pytest.raises(DeployRolledBackError):
        go(prune=True)
    assert mounts(server)
    assert "model-tools" in names(server)
    assert running(server) == image(OLD)


def test_a_release_that_mounts_the_old_tools_is_gone_back_to_after_they_were_pruned(
    checkout: Checkout, server: ApiServer
) -> None:
    with_tools(checkout)
    go()
    without_tools(checkout)
    checkout.lock({API: NEW})
    go()
    go(prune=True)
    assert not mounts(server)
    assert "model-tools" not in names(server)
    rollback.rollback("staging", yes=True, patience=BRIEF)
    assert mounts(server)
    assert server.body("ConfigMap", "model-tools")["data"] == {"fetch.py": 'print("fetch")\n'}
    assert running(server) == image(OLD)
