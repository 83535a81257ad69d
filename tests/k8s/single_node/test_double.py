"""The double of the API server answers as the real one does: the same calls to both, and every difference has its reason."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from common import single_node
from common.run import Result
from k8s.envs.environment import ClusterTarget
from k8s.rollouts.kubectl import Kubectl, Patience
from k8s.single_node.places import HOST_LINK, Home
from tests.k8s.simulator.apiserver import VERSIONS, ApiServer
from tests.waiting import eventually

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="a cluster needs root"),
    pytest.mark.skipif(Path("/sys/class/net", HOST_LINK).exists(), reason="one runs already: `invoke cluster --down` ends it"),
]
SPACE = "pinwheel-test-double"
_PATIENCE = Patience(request=20, tries=2)
# What no two servers have in common.
_VOLATILE = ("uid", "resourceVersion", "creationTimestamp", "time", "selfLink")
# What a real server writes of its own accord, and nothing of ours reads.
_OF_THE_SERVER = {"Namespace": ("spec", "status"), "ConfigMap": (), "Lease": (), "Secret": ("type",)}


def config(data: Mapping[str, str], name: str = "settings", **metadata: object) -> dict[str, Any]:
    place = {"name": name, "namespace": SPACE, "labels": {"app": "double"}, **metadata}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": place, "data": dict(data)}


NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}
LEASE = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"name": "pinwheel", "namespace": SPACE},
    "spec": {"holderIdentity": "me", "leaseDurationSeconds": 60},
}
SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "keys", "namespace": SPACE},
    "data": {"one": "MQ==", "two": "Mg=="},
}
UNSERVED = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "one", "namespace": SPACE}}


def of(*bodies: Mapping[str, Any]) -> str:
    return "---\n".join(map(json.dumps, bodies))


def replaced(kubectl: Kubectl, stale: bool) -> Result:
    """Write the Lease over the version that is there, or over one that was."""
    live = kubectl.get("leases.coordination.k8s.io", SPACE, "pinwheel")
    assert live
    live["spec"]["holderIdentity"] = "another"
    live["metadata"].pop("managedFields", None)
    if stale:
        live["metadata"]["resourceVersion"] = "1"
    return kubectl.replace(live)


# In this order, each on what those before it left.
CALLS: dict[str, Callable[[Kubectl], Result]] = {
    "a get in a namespace that is not there": lambda k: k.request(
        ["get", "configmaps", "settings", "-n", SPACE, "--ignore-not-found", "-o", "json"]
    ),
    "a get of objects that are not there": lambda k: k.request(
        ["get", "-f", "-", "--ignore-not-found", "-o", "json"], stdin=of(NAMESPACE, config({}))
    ),
    "an apply into a namespace that is not there": lambda k: k.apply(of(config({"a": "1"}))),
    "a dry run into a namespace that is not there": lambda k: k.dry_run(of(config({"a": "1"}))),
    "a namespace": lambda k: k.apply(of(NAMESPACE)),
    "an object": lambda k: k.apply(of(config({"a": "1", "b": "2"}))),
    "the same object again": lambda k: k.apply(of(config({"a": "1", "b": "2"}))),
    "who owns what": lambda k: k.request(
        ["get", "-f", "-", "--show-managed-fields", "-o", "json"], stdin=of(config({"a": "1", "b": "2"}))
    ),
    "a field of another manager": lambda k: k.apply(of(config({"a": "9"})), part="other"),
    "a dry run over a field of another manager": lambda k: k.request(
        ["apply", "--server-side", "--dry-run=server", "--field-manager=other", "-o", "json", "-f", "-"],
        stdin=of(config({"a": "9"})),
    ),
    "a field that two managers say alike": lambda k: k.apply(of(config({"a": "1"})), part="same"),
    "a field that is taken by force": lambda k: k.apply(of(config({"b": "9"})), part="other", force=True),
    "who owns what then": lambda k: k.dry_run(of(config({"a": "1"}))),
    "a field that is left out": lambda k: k.apply(of(config({"a": "1"}))),
    "what is left of it": lambda k: k.request(["get", "configmaps", "settings", "-n", SPACE, "-o", "json"]),
    "a field that no such object has": lambda k: k.apply(of({**config({}), "colour": "red"})),
    "two at once, one of them not there": lambda k: k.request(
        ["get", "-f", "-", "--ignore-not-found", "-o", "json"], stdin=of(config({}), config({}, "absent"))
    ),
    "one that is not there and not to be ignored": lambda k: k.request(["get", "configmaps", "absent", "-n", SPACE]),
    "a list by label": lambda k: k.request(["get", "configmaps", "-n", SPACE, "-l", "app=double", "-o", "name"]),
    "a list by a label that none has": lambda k: k.request(["get", "configmaps", "-n", SPACE, "-l", "app=none", "-o", "name"]),
    "nodes by a label that none has": lambda k: k.request(["get", "nodes", "-l", "nvidia.com/none", "-o", "name"]),
    "a lease": lambda k: k.create(LEASE),
    "a lease that is there": lambda k: k.create(LEASE),
    "a lease over its own version": lambda k: replaced(k, stale=False),
    "a lease over a version that was": lambda k: replaced(k, stale=True),
    "a secret": lambda k: k.apply(of(SECRET)),
    "the keys of a secret": lambda k: Result(0, " ".join(sorted(k.secret_keys(SPACE, "keys"))), ""),
    "a kind that is not served": lambda k: k.request(
        ["get", "-f", "-", "--ignore-not-found", "-o", "json"], stdin=of(UNSERVED)
    ),
    "an apply of a kind that is not served": lambda k: k.apply(of(UNSERVED)),
    "the kinds of a group that is not there": lambda k: Result(0, " ".join(sorted(k.resources("example.com"))), ""),
    "a delete": lambda k: k.delete(of(config({}), LEASE)),
    "a delete of what is gone": lambda k: k.delete(of(config({}), LEASE)),
    "logs of a pod that is not there": lambda k: k.request(["logs", "absent", "-n", SPACE, "-c", "main"]),
}


def plain(value: Any) -> Any:
    """An answer without what is the server's own."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    own = _OF_THE_SERVER.get(str(value.get("kind")), ()) if "apiVersion" in value else ()
    kept = {key: plain(one) for key, one in value.items() if key not in {*_VOLATILE, *own}}
    if "managedFields" in kept:
        # The server sorts by time first.
        kept["managedFields"].sort(key=lambda entry: entry["manager"])
    return kept


def told(result: Result) -> str:
    """What a caller could go by: the code, the objects, the words; as lines, so that a difference is seen."""
    words = re.sub(r"\s+", " ", result.stderr).strip()
    try:
        said = plain(json.loads(result.stdout)) if result.stdout.strip() else ""
    except ValueError:
        said = result.stdout
    return json.dumps({"code": result.code, "said": said, "words": words}, indent=1, sort_keys=True)


def real_one() -> Kubectl:
    return Kubectl(ClusterTarget("pinwheel", kubeconfig=str(Home.of_this_machine().kubeconfig)), _PATIENCE)


def double_of(api: ApiServer, folder: Path) -> Kubectl:
    target = ClusterTarget("simulator", kubeconfig=str(api.kubeconfig(folder / "config", "simulator")))
    double = Kubectl(target, _PATIENCE)
    # The same kubectl for both.
    double._program[0] = str(single_node.kubectl())
    return double


@pytest.fixture(scope="module")
def answers(bare: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    del bare
    folder = tmp_path_factory.mktemp("double")
    real = real_one()
    with ApiServer(version=VERSIONS[-1], crds=False) as api, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECACHEDIR", str(folder / "cache"))
        double = double_of(api, folder)
        try:
            return {name: (told(call(double)), told(call(real))) for name, call in CALLS.items()}
        finally:
            real.delete(of(NAMESPACE))


@pytest.mark.parametrize("name", CALLS)
def test_the_double_answers_as_the_real_server(answers: dict[str, tuple[str, str]], name: str) -> None:
    double, real = answers[name]
    if difference := "\n".join(difflib.unified_diff(double.splitlines(), real.splitlines(), "the double", "the server")):
        pytest.fail(difference)


def test_a_namespace_that_is_ending_takes_nothing_on_either(bare: list[str], tmp_path: Path) -> None:
    del bare
    ends = {**NAMESPACE, "metadata": {"name": f"{SPACE}-ends", "finalizers": []}}
    body = config({})
    body["metadata"]["namespace"] = f"{SPACE}-ends"
    body["metadata"]["finalizers"] = ["pinwheel.io/held"]
    real = real_one()
    assert not real.apply(of(ends)).code
    assert not real.apply(of(body)).code
    real.delete(of(ends))
    other = {**body, "metadata": {**body["metadata"], "name": "late"}}
    eventually(lambda: real.apply(of(other)).code, "the namespace is ending")
    with ApiServer(version=VERSIONS[-1]) as api:
        double = Kubectl(
            ClusterTarget("simulator", kubeconfig=str(api.kubeconfig(tmp_path / "config", "simulator"))), _PATIENCE
        )
        double._program[0] = str(single_node.kubectl())
        assert not double.apply(of(ends)).code
        api.terminating.add(f"{SPACE}-ends")
        assert told(double.apply(of(other))) == told(real.apply(of(other)))
    del body["metadata"]["finalizers"]
    real.apply(of({**body, "metadata": {**body["metadata"], "finalizers": []}}), force=True)
