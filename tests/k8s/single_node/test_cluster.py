"""The cluster itself: built, brought up, used, broken, taken down. The tests run in their order, on one cluster."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common import console, paths, single_node
from common.errors import MissingEnvironmentError
from common.files import sha256_bytes
from common.single_node import REGISTRY
from k8s.envs import environment
from k8s.objects import strict_yaml
from k8s.prepare import checked
from k8s.rollouts.kubectl import listed
from k8s.single_node import cluster, namespaces, programs, scratch
from k8s.single_node.addons import Cluster
from k8s.single_node.places import DOCKER_CERTIFICATES, HOST_LINK, Home
from k8s.single_node.scratch import ScratchImage
from oci.client.client import Client
from oci.client.target import Registry
from oci.descriptor import canonical
from tests.k8s.single_node import admission, machine
from tests.k8s.single_node.admission import Attempt

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="a cluster needs root"),
    pytest.mark.skipif(Path("/sys/class/net", HOST_LINK).exists(), reason="one runs already: `invoke cluster --down` ends it"),
]
HERE = Path(__file__).parent
IMAGE = f"{REGISTRY}/test/busybox:1"


class Site:
    """The machine before it had a cluster, and the cluster."""

    def __init__(self) -> None:
        self.home = Home.of_this_machine()
        self.before = machine.snapshot(self.home.root)
        # What an earlier cluster left would hide what this one leaves.
        assert not self.before["cgroups"]
        self.cluster = Cluster(self.home, programs.programs(["policies", "metrics"]))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl(*arguments, stdin=stdin)

    def in_client(self, *command: str) -> subprocess.CompletedProcess[str]:
        argv = [str(programs.located().kubectl), f"--kubeconfig={self.home.kubeconfig}", "exec", "client", "--", "/bin/busybox"]
        return subprocess.run([*argv, *command], capture_output=True, text=True, check=False)

    def within(self, namespace: str, *command: str) -> subprocess.CompletedProcess[str]:
        argv = [str(programs.located().kubectl), f"--kubeconfig={self.home.kubeconfig}", "exec", "-n", namespace, "asks", "--"]
        return subprocess.run([*argv, "/bin/busybox", *command], capture_output=True, text=True, check=False)

    def attempt(self, one: Attempt) -> str:
        """Send something without keeping it; returns the server's refusal, empty where there is none."""
        verb = "create" if one.before is None else "replace"
        account = ["--as", one.account] if one.account else []
        argv = [str(programs.located().kubectl), f"--kubeconfig={self.home.kubeconfig}", verb, "--dry-run=server", *account]
        sent = subprocess.run([*argv, "-f", "-"], input=json.dumps(one.body), capture_output=True, text=True, check=False)
        return sent.stderr if sent.returncode else ""

    def web_answers(self) -> bool:
        """Whether a pod finds the Service by its name and gets its page."""
        # Debian's static busybox looks names up in `nslookup` alone: elsewhere it wants libraries that the image does not have.
        found = self.in_client("nslookup", "web.default.svc.cluster.local").stdout.rpartition("Address: ")[2].strip()
        request = f"printf 'GET /starts HTTP/1.0\\r\\n\\r\\n' | /bin/busybox nc -w 2 {found} 80"
        return "200 OK" in self.in_client("sh", "-c", request).stdout

    def apply(self, file: str) -> None:
        self.kubectl("apply", "--server-side", "-f", "-", stdin=(HERE / file).read_text().replace("IMAGE", IMAGE))


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    # Sockets of the kubelet have paths of at most 107 characters.
    folder = tempfile.mkdtemp(prefix="pinwheel-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PINWHEEL_STATE", folder)
        try:
            yield Site()
        finally:
            cluster.down()
            shutil.rmtree(folder)


def soon(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.2)


def test_it_comes_up(site: Site) -> None:
    began = time.monotonic()
    assert cluster.up("policies,metrics", "2") == "the cluster runs"
    console.info(f"up in {time.monotonic() - began:.1f} s")
    assert site.cluster.node_ready()
    assert site.cluster.whole(["metrics"])
    assert "v1.36.3" in site.kubectl("get", "nodes")
    assert site.home.kubeconfig.stat().st_mode & 0o077 == 0


def test_a_second_time_there_is_nothing_to_do(site: Site) -> None:
    process, stamp = namespaces.running(site.home), site.kubectl("get", "deployments", "-A", "-o", "yaml")
    assert cluster.up() == "the cluster runs already; nothing to do"
    assert namespaces.running(site.home) == process
    assert site.kubectl("get", "deployments", "-A", "-o", "yaml") == stamp


def test_the_registry_takes_an_image_and_the_cluster_runs_it(site: Site, tmp_path: Path) -> None:
    shutil.copy("/bin/busybox", tmp_path / "busybox")
    scratch.write(tmp_path / "image.tar", [ScratchImage(IMAGE, tmp_path / "busybox", 1000)])
    push = ["skopeo", "copy", "--quiet", f"oci-archive:{tmp_path / 'image.tar'}", f"docker://{IMAGE}"]
    subprocess.run(push, check=True, capture_output=True)
    assert (DOCKER_CERTIFICATES / "ca.crt").exists()
    site.apply("objects.yaml")
    site.kubectl("wait", "pod/client", "--for=condition=Ready", "--timeout=120s")
    site.kubectl("wait", "deployment/web", "--for=condition=Available", "--timeout=120s")
    assert "pinwheel" in site.kubectl("get", "pod", "client", "-o", "wide")


def test_a_claim_is_bound_to_a_folder_that_its_pod_writes(site: Site) -> None:
    assert site.kubectl("get", "pvc", "data", "-o", "jsonpath={.status.phase}") == "Bound"
    (folder,) = site.home.volumes.iterdir()
    assert (folder / "starts").read_text().count("\n") >= 1


def test_names_are_found_and_services_answer(site: Site) -> None:
    found = site.in_client("nslookup", "kubernetes.default.svc.cluster.local")
    assert "10.233.128.1" in found.stdout, found
    assert site.web_answers()
    unknown = site.in_client("nslookup", "example.invalid")
    assert "NXDOMAIN" in unknown.stdout + unknown.stderr


def test_no_packet_leaves_the_machine(site: Site) -> None:
    outside = site.in_client("nc", "-w", "3", "192.0.2.254", "80")
    assert outside.returncode
    assert "unreachable" in outside.stderr.lower()
    # The same machine, another port than the registry's.
    other = site.in_client("nc", "-w", "3", *REGISTRY.replace("5001", "5000").split(":"))
    assert other.returncode
    assert site.in_client("nc", "-w", "3", *REGISTRY.split(":")).returncode == 0


def test_a_workflow_of_argo_succeeds(site: Site) -> None:
    site.apply("workflow.yaml")
    path = ("get", "workflow", "two-steps", "--namespace=llm-training", "-o", "jsonpath={.status.phase}")
    soon(lambda: site.kubectl(*path) in ("Succeeded", "Failed", "Error"))
    assert site.kubectl(*path) == "Succeeded"


def test_the_scheduler_counts_pretended_gpus(site: Site) -> None:
    soon(lambda: site.kubectl("get", "pod", "one-gpu", "-o", "jsonpath={.status.phase}") == "Running")
    assert site.kubectl("get", "pod", "too-many-gpus", "-o", "jsonpath={.status.phase}") == "Pending"
    labels = site.kubectl("get", "node", "pinwheel", "-o", "jsonpath={.metadata.labels}")
    assert "PRETENDED-BY-PINWHEEL" in labels


def test_a_network_policy_is_enforced(site: Site) -> None:
    deny = """{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny"},
               "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]}}"""
    assert site.web_answers()
    site.kubectl("apply", "-f", "-", stdin=deny)
    soon(lambda: not site.web_answers())
    site.kubectl("delete", "networkpolicy", "deny")
    soon(site.web_answers)


# Who may open a connection to whom with the platform's NetworkPolicies: everybody else is kept out (docs/cluster.md).
ALLOWED = {
    "llm-training": {"API server", "registry"},
    "llm-inference": {"registry"},
    "llm-dev-ui": set[str](),
    "my-app": {"llm-inference", "my-app", "another", "API server", "registry"},
    "another": {"my-app", "another", "API server", "registry"},
}


def test_the_platforms_policies_let_out_and_in_what_they_say_and_nothing_else(site: Site) -> None:
    """Every pair, asked from real pods; the policies are those that a deploy to `local` would send."""
    env = environment.load("local")
    rendered = checked.from_git(env, checked.locked_images(required=True), lambda *_: {})
    sent = [one.body for one in rendered.objects if one.kind == "NetworkPolicy"]
    site.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=strict_yaml.dump(sent))
    site.apply("pods.yaml")
    for namespace in ALLOWED:
        site.kubectl("wait", "pod/asks", f"--namespace={namespace}", "--for=condition=Ready", "--timeout=120s")
    path = ("get", "pod", "asks", "-o", "jsonpath={.status.podIP}")
    places = {namespace: (site.kubectl(*path, f"--namespace={namespace}"), "8000") for namespace in ALLOWED}
    places |= {"API server": ("10.233.128.1", "443"), "registry": tuple(REGISTRY.split(":"))}  # type: ignore[dict-item]

    def reached() -> dict[str, set[str]]:
        return {
            asking: {
                name
                for name, address in places.items()
                if name != asking and not site.within(asking, "nc", "-w", "1", *address).returncode
            }
            for asking in ALLOWED
        }

    def expected() -> dict[str, set[str]]:
        return {asking: names - {asking} for asking, names in ALLOWED.items()}

    soon(lambda: reached() == expected(), seconds=60)


def test_the_servers_own_verdicts_are_those_of_the_sets_admission_policies(site: Site) -> None:
    """The policies that a deploy to `local` would send; everything is a dry run but the one Deployment."""
    env = environment.load("local")
    rendered = checked.from_git(env, checked.locked_images(required=True), lambda *_: {})
    policies = [one.body for one in rendered.objects if one.kind.startswith("ValidatingAdmissionPolicy")]
    # All rights, so that only a policy can refuse.
    rights: dict[str, object] = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding"}
    rights |= {"metadata": {"name": "admission-test"}, "subjects": [{"kind": "User", "name": admission.PIPELINE}]}
    rights |= {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}}
    before = admission.deployment()
    # As deploys do: a client-side apply leaves an annotation, which a `kubectl replace` renews.
    site.kubectl("apply", "--server-side", "-f", "-", stdin=strict_yaml.dump([rights, before]))
    site.kubectl("apply", "--server-side", "-f", "-", stdin=strict_yaml.dump(policies))
    try:
        (live,) = listed(site.kubectl("get", "-f", "-", "-o", "json", stdin=strict_yaml.dump([before])))
        attempts = [*admission.images(), *admission.promotions(live)]
        refused = [one for one in attempts if not one.allowed]
        # The server reads new policies after a moment.
        soon(lambda: "denied request" in site.attempt(refused[0]) and "denied request" in site.attempt(refused[-1]))
        wrong = [(one.title, said) for one in attempts if ("denied request" not in (said := site.attempt(one))) != one.allowed]
        assert wrong == []
        failed = [(one.title, said) for one in attempts if one.allowed and (said := site.attempt(one))]
        assert failed == []
        asks = json.loads(site.kubectl("get", "pod", "asks", "-n", "llm-training", "-o", "json"))
        asks["spec"]["ephemeralContainers"] = [{**admission.container(admission.STRANGER), "name": "debug"}]
        path = "/api/v1/namespaces/llm-training/pods/asks/ephemeralcontainers?dryRun=All"
        with pytest.raises(MissingEnvironmentError, match="denied request"):
            site.kubectl("replace", "--raw", path, "-f", "-", stdin=json.dumps(asks))
    finally:
        site.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=strict_yaml.dump([*policies, rights, before]))


def test_the_deploys_scenarios_pass_on_it(site: Site) -> None:
    """Apply, roll, put back, drift, prune as they run on the double, each in a namespace of its own."""
    process = namespaces.running(site.home)
    assert process
    made, place = programs.located(), REGISTRY + "/test/pause"
    push = [str(made.bin / "ctr"), "--namespace=k8s.io", "images", "push", f"--hosts-dir={site.home.config / 'certs.d'}"]
    subprocess.run([*namespaces.enter(process.pid), *push, f"{place}:1", made.image("pause")], check=True, capture_output=True)
    with Client(Registry.parse(REGISTRY), writes=True) as client:
        client.prepare()
        first = client.manifest("test/pause", "1")
        # The same program under another digest.
        second = canonical({**json.loads(first), "annotations": {"second": "yes"}})
        client.put_manifest("test/pause", "2", second)
    images = ",".join(f"{place}@{sha256_bytes(manifest)}" for manifest in (first, second))
    argv = [sys.executable, "-m", "invoke", "test", "--cluster", "pinwheel", "--images", images]
    env = {**os.environ, **single_node.without_proxy(), "KUBECONFIG": str(site.home.kubeconfig)}
    done = subprocess.run(argv, cwd=paths.ROOT, env=env, capture_output=True, text=True, check=False)
    assert "6 passed" in done.stdout, done.stdout[-3000:]


def test_the_metrics_api_knows_what_pods_use(site: Site) -> None:
    def known() -> bool:
        argv = [str(programs.located().kubectl), f"--kubeconfig={site.home.kubeconfig}", "top", "pod", "client"]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    soon(known)


@pytest.mark.parametrize("part", ["etcd", "containerd", "kube-apiserver", "kubelet"])
def test_a_killed_part_comes_back_by_itself(site: Site, part: str) -> None:
    process = namespaces.running(site.home)
    assert process
    number = cluster.processes(process.pid)[str(programs.located().bin / part)]
    os.kill(int(number), signal.SIGKILL)
    soon(lambda: cluster.processes(process.pid).get(str(programs.located().bin / part), number) != number)
    site.cluster.settle(process.pid, [], 120)
    # Until the node's state is stale enough to be noticed, a dead kubelet still counts as ready.
    soon(lambda: site.in_client("true").returncode == 0)


def test_after_a_crash_it_is_mended_and_nothing_is_lost(site: Site) -> None:
    process = namespaces.running(site.home)
    assert process
    starts = next(site.home.volumes.iterdir()) / "starts"
    before = starts.read_text()
    os.kill(process.pid, signal.SIGKILL)
    soon(lambda: namespaces.running(site.home) is None)
    assert "not running" in cluster.status()
    assert cluster.up() == "the cluster runs"
    site.kubectl("wait", "pod/client", "--for=condition=Ready", "--timeout=120s")
    soon(site.web_answers)
    assert starts.read_text().startswith(before)
    assert starts.read_text() != before
    soon(lambda: site.kubectl("get", "node", "pinwheel", "-o", r"jsonpath={.status.allocatable.nvidia\.com/gpu}") == "2")


def test_the_status_says_what_runs_and_how_to_use_it(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster.status() == "running, node pinwheel ready; not for production"
    output = capsys.readouterr().out
    line = next(line for line in output.splitlines() if "kubectl: " in line)
    command = line.partition("kubectl: ")[2]
    assert subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout.count("Running") >= 4
    assert " down " not in output


def test_down_leaves_nothing(site: Site) -> None:
    assert "is gone" in cluster.down()
    assert not site.home.root.exists()
    assert not DOCKER_CERTIFICATES.exists()
    assert machine.left(site.before, machine.snapshot(site.home.root)) == {}
    assert cluster.down() == "there was no cluster"
    # The embedded registry's data stays: it is not the cluster's.
    assert (paths.state() / "registry" / "data").exists()
