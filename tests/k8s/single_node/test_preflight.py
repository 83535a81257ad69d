"""What cannot start is found out before what serves is touched: on the real cluster, with the programs of this checkout."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from common.errors import DeployRolledBackError, ExitCode, PinwheelError, PolicyError, RegistryError
from k8s import drift
from k8s.pipeline import promote
from k8s.rollouts import rollout
from k8s.single_node import registry
from k8s.single_node.places import Home
from tests.k8s.single_node.served import NAME, NAMESPACE, PATIENCE, TRIAL, Served, proxy
from tests.oci.real import CERTIFICATE
from tests.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="a cluster needs root")]
ABSENT = "sha256:" + "f" * 64


def registry_process() -> int:
    """The registry that the cluster pulls from."""
    mark = str(Home.of_this_machine().root / "registry.yml").encode()
    (found,) = (
        int(one.name)
        for one in Path("/proc").iterdir()
        if one.name.isdecimal() and (one / "cmdline").exists() and mark in (one / "cmdline").read_bytes().split(b"\0")
    )
    return found


@contextmanager
def stopped_registry() -> Iterator[None]:
    os.kill(registry_process(), signal.SIGKILL)
    eventually(lambda: not registry.answers(Home.of_this_machine()), "the registry is away")
    try:
        yield
    finally:
        registry.start(Home.of_this_machine())


def test_the_first_deploy_serves_and_the_preflight_has_no_pods(served: Served) -> None:
    served.say()
    assert served.go().result == "running"
    eventually(served.answers, "the server answers")
    assert served.serving()[1:] == (served.images[0], served.models[0])
    served.at_rest()
    assert drift.drift("served", patience=PATIENCE).startswith("no drift")


def test_a_new_image_and_a_new_model_are_tried_first_and_served_then(
    running: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    running.say(image=running.images[1], model=running.models[1])
    running.go()
    said = capsys.readouterr().out
    tried, rolled = (said.index(f"✓ Deployment {NAMESPACE}/{name}: 1 of 1 updated") for name in (TRIAL, NAME))
    assert tried < rolled
    assert running.serving()[1:] == (running.images[1], running.models[1])
    running.at_rest()


def refused(served: Served, kind: type[PinwheelError], words: str, **said: str) -> None:
    """A deploy of this is refused, and the server answers all the time."""
    served.say(**said)
    with served.answering(), pytest.raises(kind, match=words) as caught:
        served.go()
    assert "what serves was not touched" in caught.value.line()
    assert caught.value.exit_code == kind.exit_code
    served.at_rest()
    served.say()
    assert drift.drift("served", patience=PATIENCE).startswith("no drift")


def test_an_image_that_the_registry_lacks_is_refused(running: Served) -> None:
    refused(running, RegistryError, "ErrImagePull|ImagePullBackOff", image=ABSENT)


def test_a_wrong_certificate_authority_is_refused(running: Served) -> None:
    refused(running, RegistryError, "fetch: .*certificate", ca=str(CERTIFICATE))


def test_a_model_with_another_signature_is_refused(running: Served) -> None:
    refused(running, PolicyError, "fetch: .*sign", model=running.models[2])


def test_a_port_that_no_policy_lets_out_is_refused(running: Served) -> None:
    refused(running, RegistryError, "fetch: ", more="ports: {registry: [5002]}\n")


def test_a_volume_that_is_full_is_named_and_the_last_good_set_runs_again(running: Served) -> None:
    """A preflight fetches nothing: only the server's own pod finds it out."""
    small = {"{name: models, emptyDir: {sizeLimit: 1Gi}}": "{name: models, emptyDir: {medium: Memory, sizeLimit: 4Ki}}"}
    running.say(**small)
    with pytest.raises(DeployRolledBackError, match="MiB free, .*: make the volume larger; the last good set runs again"):
        running.go()
    eventually(running.answers, "the server answers again")


def test_what_pod_security_forbids_is_refused_though_the_environment_accepts_it(running: Served) -> None:
    accept = f"""accept:
  - {{rule: pod-security, object: Deployment {NAMESPACE}/{NAME}, reason: a test, until: 2999-01-01}}
"""
    rights = {"allowPrivilegeEscalation: false": "allowPrivilegeEscalation: true"}
    refused(running, PolicyError, 'violates PodSecurity "restricted', more=accept, **rights)


# What refuses pods, whoever made it: it is not part of the set.
DENYING = {
    "a full quota": (
        f"""
apiVersion: v1
kind: ResourceQuota
metadata: {{name: full, namespace: {NAMESPACE}}}
spec: {{hard: {{pods: "1"}}}}
""",
        "exceeded quota: full",
    ),
    "an admission policy": (
        f"""
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {NAMESPACE}}}
spec:
  matchConstraints: {{resourceRules: [{{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}}]}}
  validations: [{{expression: "false", message: nobody may start anything now}}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {NAMESPACE}}}
spec:
  policyName: {NAMESPACE}
  validationActions: [Deny]
  matchResources: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {NAMESPACE}}}}}}}
""",
        "nobody may start anything now",
    ),
}


@pytest.mark.parametrize("by", DENYING)
def test_pods_that_the_cluster_refuses_are_refused_in_its_words(running: Served, by: str) -> None:
    text, words = DENYING[by]
    assert not running.kubectl.apply(text, part="test").code
    template = running.get("deployments.apps", NAME)["spec"]["template"]
    name = {"name": "tried", "namespace": NAMESPACE}
    pod = json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": name, "spec": template["spec"]})

    def denied() -> bool:
        """What was made counts a moment later."""
        return words in running.kubectl.request(["create", "--dry-run=server", "-f", "-"], stdin=pod).stderr

    try:
        eventually(denied, f"{by} refuses pods")
        refused(running, PolicyError, words, image=running.images[1])
    finally:
        running.kubectl.delete(text)


@pytest.mark.parametrize("image", [0, 1], ids=["the image is on the node", "the image is not"])
def test_a_registry_that_is_away_is_told_and_the_server_stays(running: Served, image: int) -> None:
    with stopped_registry():
        refused(running, RegistryError, "connect", image=running.images[image], model=running.models[1])


def test_an_interrupt_while_it_is_tried_leaves_nothing(running: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    true = rollout.wait_for_preflight

    def interrupted(*arguments: Any) -> None:
        eventually(lambda: running.pods(TRIAL), "the preflight's pod")
        raise KeyboardInterrupt

    running.say(image=running.images[1])
    monkeypatch.setattr(rollout, "wait_for_preflight", interrupted)
    with running.answering(), pytest.raises(KeyboardInterrupt):
        running.go()
    running.at_rest()
    monkeypatch.setattr(rollout, "wait_for_preflight", true)
    running.go()
    assert running.serving()[1] == running.images[1]


def test_what_a_killed_deploy_left_is_no_trouble_for_the_next(running: Served) -> None:
    """Its pod cannot start, and somebody else owns its fields."""
    spec = {"replicas": 1, "template": {"metadata": {"annotations": {"pinwheel.io/model": running.models[2]}}}}
    patch = json.dumps({"spec": spec})
    assert not running.kubectl.request(["patch", "deployment", TRIAL, "-n", NAMESPACE, "--type=merge", "-p", patch]).code
    eventually(lambda: running.pods(TRIAL), "the leftover's pod")
    running.say(model=running.models[1])
    running.go()
    assert running.serving()[2] == running.models[1]
    running.at_rest()


def promoted(model: str) -> int:
    """The pipeline's deploy step, as it runs in its pod."""
    with proxy() as api:
        return promote.main([model, "--namespace", NAMESPACE, "--deployment", NAME, "--api", api, "--timeout", "150"])


def test_the_pipeline_tries_a_model_first_too(running: Served, own_signals: None) -> None:
    with running.answering(), pytest.raises(PinwheelError, match="server was not touched.*sign") as caught:
        promoted(running.models[2])
    assert caught.value.exit_code == ExitCode.POLICY
    running.at_rest()
    assert promoted(running.models[1]) == 0
    assert running.serving()[2] == running.models[1]
    running.at_rest()
    # The next deploy is told of the model alone, and of nothing in the preflight.
    running.say(model=running.models[1])
    running.go()
    assert drift.drift("served", patience=PATIENCE).startswith("no drift")


@pytest.fixture
def own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
