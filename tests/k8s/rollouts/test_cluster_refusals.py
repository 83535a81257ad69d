"""More faults on the way, each with the state afterwards: rights, quotas, admission, namespaces, leases, records, kills."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from common.errors import DeployNotRolledBackError, DeployRolledBackError, PolicyError
from k8s.envs.environment import ClusterTarget
from k8s.rollouts import lease, release, rollout
from k8s.rollouts.kubectl import Kubectl
from k8s.rollouts.lease import Lease
from tests.k8s.conftest import API, NEW, OLD, Checkout
from tests.k8s.prepare import models
from tests.k8s.simulator.apiserver import VERSIONS, ApiServer
from tests.k8s.simulator.controller import Trouble
from tests.k8s.simulator.discovery import ARGO_API
from tests.k8s.simulator.steps import BRIEF, NAME, go, image, running, states
from tests.k8s.simulator.wire import Fault

pytestmark = [pytest.mark.host, pytest.mark.parametrize("kubernetes", VERSIONS[-1:], indirect=True)]


def test_a_429_that_asks_for_a_pause_gets_it(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    server.faults = [Fault(429, kind="Deployment", times=1, retry_after=1)]
    started = time.monotonic()
    go()
    assert time.monotonic() - started > 1
    assert running(server) == image(NEW)


def test_a_500_in_the_middle_of_an_apply_is_put_back_when_it_stays(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    # Three tries, and as the server says that it is ready, three more; then it is well again, and the old set is put back.
    server.faults = [Fault(500, kind="Deployment", times=6)]
    with pytest.raises(DeployRolledBackError, match="apply failed: .*etcdserver: leader changed"):
        go()
    assert (running(server), states()) == (image(OLD), [(1, "running"), (2, "put back")])


@pytest.mark.parametrize(("verb", "plural"), [("get", "deployments"), ("patch", "deployments"), ("patch", "configmaps")])
def test_a_right_that_is_lacking_is_named_with_its_verb_and_nothing_is_sent(
    checkout: Checkout, server: ApiServer, verb: str, plural: str
) -> None:
    go()
    checkout.lock({API: NEW})
    server.forbidden = {(verb, plural)}
    with pytest.raises(PolicyError, match=f'cannot {verb} resource "{plural}"'):
        go()
    server.forbidden = set()
    assert (running(server), states()) == (image(OLD), [(1, "running")])


@pytest.mark.parametrize(
    "message",
    ["exceeded quota: pods, requested: pods=1, used: pods=4, limited: pods=4", 'violates PodSecurity "restricted:v1.32"'],
    ids=["quota", "pod security"],
)
def test_pods_that_may_not_be_made_are_put_back_with_the_servers_words(
    checkout: Checkout, server: ApiServer, message: str
) -> None:
    go()
    checkout.lock({API: NEW})
    server.troubles = {NEW: Trouble("FailedCreate", message)}
    with pytest.raises(DeployRolledBackError, match="no pod can be made: FailedCreate: " + re.escape(message)):
        go()
    assert running(server) == image(OLD)


def test_an_admission_webhook_that_refuses_is_quoted_and_nothing_is_sent(checkout: Checkout, server: ApiServer) -> None:
    go()
    checkout.lock({API: NEW})
    words = 'admission webhook "policy.example.com" denied the request: images must come from the mirror'
    server.faults = [Fault(403, kind="Deployment", dry_run=True, message=words)]
    with pytest.raises(PolicyError, match=re.escape(words)):
        go()
    assert (running(server), states()) == (image(OLD), [(1, "running")])


def test_a_namespace_that_is_being_deleted_takes_nothing_new(checkout: Checkout, server: ApiServer) -> None:
    go()
    server.terminating = {"llm-inference"}
    checkout.add("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra, namespace: llm-inference}\n")
    with pytest.raises(PolicyError, match="unable to create new content in namespace llm-inference because it is being term"):
        go()
    assert states() == [(1, "running")]
    assert ("v1", "ConfigMap", "llm-inference", "extra") not in server.objects


def test_a_lease_lost_during_the_rollout_stops_the_wait_and_nothing_is_put_back(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    go()
    checkout.lock({API: NEW})
    server.rollout = 600
    true = rollout.wait

    def overtaken(*arguments: Any) -> None:
        monkeypatch.setattr(Lease, "lost", lambda _self: "the lease was taken over by Grace")
        true(*arguments)

    monkeypatch.setattr(rollout, "wait", overtaken)
    started = time.monotonic()
    with pytest.raises(DeployNotRolledBackError, match="nothing was put back, as the lease was taken over by Grace"):
        go()
    assert time.monotonic() - started < 300
    assert server.image() == image(NEW)


def test_a_record_too_large_for_the_server_stops_the_deploy_before_anything_is_sent(
    checkout: Checkout, server: ApiServer
) -> None:
    go()
    checkout.lock({API: NEW})
    words = 'ConfigMap "pinwheel-release" is invalid: data: Too long: may not be more than 1048576 bytes'
    server.faults = [Fault(403, kind="ConfigMap", message=words)]
    with pytest.raises(PolicyError, match="the release record cannot be written.*Too long"):
        go()
    assert running(server) == image(OLD)


def test_a_set_too_large_for_the_record_is_deployed_and_kept_on_this_machine(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "CONFIG_MAP_ROOM", 2_000)
    go()
    checkout.lock({API: NEW})
    server.bad_images = {NEW}
    with pytest.raises(DeployRolledBackError):
        go()
    assert running(server) == image(OLD)


KILLED = """
import os, pathlib, signal, sys
from common import paths
root = pathlib.Path(sys.argv[1])
paths.ROOT, paths.K8S, paths.LOCKFILES = root, root / "k8s", root / "lockfiles"
from k8s import deploy
from k8s.rollouts import restore
from k8s.rollouts.kubectl import Patience
true, calls = restore.put, []
def put(*arguments, **more):
    calls.append(1)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    true(*arguments, **more)
restore.put = put
deploy.deploy("staging", yes=True, patience=Patience(rollout=2, settle=3, pause=0.05, tries=3, lease=3, hopeless=0.5))
"""


@pytest.mark.parametrize(("call", "left"), [(1, OLD), (2, NEW)], ids=["between record and apply", "before the put-back"])
def test_a_deploy_that_is_killed_is_found_out_and_mended_by_the_next(
    checkout: Checkout, server: ApiServer, capsys: pytest.CaptureFixture[str], call: int, left: str
) -> None:
    go()
    checkout.lock({API: NEW})
    server.bad_images = {NEW}
    argv = [sys.executable, "-c", KILLED, str(checkout.root), str(call)]
    done = subprocess.run(argv, cwd=Path(__file__).parents[3], stdout=subprocess.DEVNULL, check=False, timeout=60)
    assert done.returncode == -9
    assert server.image() == image(left)
    assert states() == [(1, "running"), (2, "begun")]
    checkout.lock({API: OLD})
    go(wait=True)
    assert "release 2" in capsys.readouterr().err
    assert (running(server), states()[-1]) == (image(OLD), (3, "running"))


@pytest.mark.parametrize("ahead", [-3600, 3600], ids=["behind", "ahead"])
def test_the_clock_of_who_holds_the_lease_does_not_count(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    """An hour off, a holder that renews keeps its lease, and one that died loses it."""
    go()
    checkout.lock({API: NEW})
    now = lease._now
    monkeypatch.setattr(lease, "_now", lambda: now() + datetime.timedelta(seconds=ahead))
    held = Lease(Kubectl(ClusterTarget("staging"), BRIEF), "staging", "llm-inference", "Ada")
    held.take(wait=False)
    monkeypatch.setattr(lease, "_now", now)
    go(wait=True)
    assert running(server) == image(NEW)


def test_what_the_pipeline_serves_is_not_overwritten_and_is_named_to_be_written_down(
    checkout: Checkout, server: ApiServer
) -> None:
    go()
    other = f"registry.example.com/llm/{models.OTHER}"
    annotated = {"spec": {"template": {"metadata": {"annotations": {"pinwheel.io/model": other}}}}}
    server.edit("Deployment", NAME, annotated, "pinwheel-pipeline")
    with pytest.raises(PolicyError) as caught:
        go()
    said = caught.value.line()
    assert "belongs to pinwheel-pipeline" in said
    assert f"the pipeline serves {other}: write that under `model.reference` in the environment's file" in said
    models.named(checkout.root, "staging", models.OTHER)
    go()
    assert server.body("Deployment", NAME)["spec"]["template"]["metadata"]["annotations"]["pinwheel.io/model"] == other


def test_a_kind_that_the_cluster_does_not_have_is_refused_before_the_first_byte(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.crds = False
    monkeypatch.setattr("k8s.prepare.checked.refuse", lambda _found: None)
    checkout.add(WORKFLOW)
    with pytest.raises(PolicyError, match=r"no such kinds: Workflow \(argoproj\.io/v1alpha1\).*install Argo Workflows first"):
        go()
    assert server.objects == {}


WORKFLOW = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: w, namespace: llm-inference}
spec:
  entrypoint: main
  templates: [{name: main, suspend: {}}]
"""
DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: workflows.argoproj.io}
spec:
  group: argoproj.io
  scope: Namespaced
  names: {plural: workflows, kind: Workflow}
  versions:
    - name: v1alpha1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""


def test_a_set_that_brings_its_kinds_has_them_first_and_waits_until_they_are_served(
    checkout: Checkout, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.crds, server.crd_delay = False, 0.5
    # What is refused of this workflow otherwise is not the question here.
    monkeypatch.setattr("k8s.prepare.checked.refuse", lambda _found: None)
    checkout.add(DEFINITION + "---" + WORKFLOW)
    assert ("Workflow llm-inference/w", "created") in go().changed
    assert (ARGO_API, "Workflow", "llm-inference", "w") in server.objects
    writes = [path.split("?")[0] for method, path in server.requests if method == "PATCH" and "dryRun" not in path]
    assert writes[:2] == [
        "/api/v1/namespaces/llm-inference",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/workflows.argoproj.io",
    ]
    assert go().changed == ()


def test_a_kubectl_that_does_not_know_server_side_apply_is_a_refusal_before_anything_is_sent(
    checkout: Checkout, server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = shutil.which("kubectl")
    old = tmp_path / "bin" / "kubectl"
    old.parent.mkdir()
    old.write_text(
        "#!/bin/sh\n"
        'for one in "$@"; do case "$one" in --server-side*) echo "unknown flag: --server-side" >&2; exit 1;; esac; done\n'
        f'exec {true} "$@"\n'
    )
    old.chmod(old.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{old.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(PolicyError, match="unknown flag: --server-side"):
        go()
    assert server.objects == {}
