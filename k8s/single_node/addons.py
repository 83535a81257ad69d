"""What runs in the cluster before anybody uses it: name server, volumes, Argo Workflows, extras, and a pretended GPU."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from common import paths, single_node
from common.errors import MissingEnvironmentError
from common.files import write_whole
from common.run import Result, run
from k8s.single_node import namespaces
from k8s.single_node.places import DNS_SERVICE, DOMAIN, NODE, Home
from k8s.single_node.programs import Programs

_MANIFESTS = Path(__file__).parent / "manifests"
_LABEL = "pinwheel.io/part-of=single-node"
_GPU = "nvidia.com/gpu"
# As NVIDIA's GPU feature discovery writes them, for a GPU that every image of ours can use; the last one says what it is.
_GPU_LABELS = {
    "nvidia.com/cuda.driver-version.major": "580",
    "nvidia.com/gpu.compute.major": "9",
    "nvidia.com/gpu.compute.minor": "0",
    "nvidia.com/gpu.product": "PRETENDED-BY-PINWHEEL",
}
_LOG = "its log says more: `invoke cluster` names it"


class Cluster:
    """A running cluster, as its administrator sees it."""

    def __init__(self, home: Home, programs: Programs) -> None:
        self._home, self._programs = home, programs

    def kubectl(self, *arguments: str, stdin: str | None = None, what: str = "") -> str:
        """Run kubectl; returns what it prints.

        Raises:
            MissingEnvironmentError: it fails; `what` says in the message what could not be done.
        """
        return self._call(*arguments, stdin=stdin, what=what or f"kubectl {arguments[0]}").stdout

    def answers(self) -> bool:
        """Whether the API server is ready."""
        return self._call("get", "--raw", "/readyz", "--request-timeout=3s").code == 0

    def settle(self, pid: int, extras: Collection[str], seconds: float) -> None:
        """Wait until the node takes pods, and give it the images that no registry has.

        Args:
            pid: of the first process inside.
            extras: that were asked for.
            seconds: to wait for containerd, and again for the rest.

        Raises:
            MissingEnvironmentError: it takes longer.
        """
        containerd = [*namespaces.enter(pid), str(self._programs.bin / "ctr"), "--namespace", "k8s.io"]
        self._await(lambda: run([*containerd, "version"]).code == 0, "containerd", seconds)
        # While the others start.
        present = run([*containerd, "images", "list", "--quiet"]).stdout.split()
        for image, archive in self._programs.images(extras).items():
            if image not in present:
                argv = [*containerd, "images", "import", str(archive)]
                run(argv, error=MissingEnvironmentError, what="loading the cluster's own images")
        self._await(self.answers, "kube-apiserver", seconds)
        self._await(self.node_ready, "kubelet", seconds)

    def _await(self, condition: Callable[[], bool], part: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                where = self._home.logs / f"{part}.log"
                last = (where.read_text(errors="replace").strip().splitlines() or [""])[-1] if where.exists() else ""
                what = f"{part} is not ready after {seconds:.0f} s"
                raise MissingEnvironmentError(what, where=f"{where}: {last[:300]}", fix="the log says why")
            time.sleep(0.1)

    def node_ready(self) -> bool:
        """Whether the node takes pods."""
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        return self._call("get", "node", NODE, "-o", f"jsonpath={path}").stdout == "True"

    def whole(self, extras: Collection[str]) -> bool:
        """Whether everything that `install` put there runs."""
        listing = self._call("get", "deployments", "--all-namespaces", "-l", _LABEL, "-o", "json")
        if listing.code:
            return False
        ready = {
            item["metadata"]["name"]
            for item in json.loads(listing.stdout)["items"]
            if item.get("status", {}).get("availableReplicas")
        }
        expected = {"coredns", "volumes", "workflow-controller", *(["metrics-server"] if "metrics" in extras else [])}
        return ready >= expected

    def install(self, extras: Collection[str]) -> None:
        """Put everything there, and wait until it runs. What is there already stays as it is.

        Raises:
            MissingEnvironmentError: an object is refused, or a pod does not start.
        """
        folder = paths.K8S / "manifests"
        namespaces_first = "---\n".join(file.read_text() for file in sorted(folder.glob("*/namespace.yaml")))
        self._apply(namespaces_first)
        names = ["dns", "volumes", *sorted(extras)]
        texts = [self._filled((_MANIFESTS / f"{name}.yaml").read_text()) for name in names]
        texts += [file.read_text() for file in sorted((folder / "argo").glob("*.yaml"))]
        self._apply("\n---\n".join([*texts, self._argo()]))
        argv = ["wait", "deployments", "--all-namespaces", "-l", _LABEL, "--for=condition=Available", "--timeout=120s"]
        self.kubectl(*argv, what="waiting for the cluster's own pods")

    def pretend_gpus(self, count: int) -> None:
        """Make the node claim that it has GPUs, or take them away with 0. Nothing runs on them: there are none.

        Raises:
            MissingEnvironmentError: the API server refuses.
        """
        node = json.loads(self.kubectl("get", "node", NODE, "-o", "json"))
        if int(node["status"]["capacity"].get(_GPU, 0)) == count:
            return
        labels = {name: value if count else None for name, value in _GPU_LABELS.items()}
        self._patch({"metadata": {"labels": labels}})
        amount = {_GPU: str(count) if count else None}
        self._patch({"status": {"capacity": amount, "allocatable": amount}}, "--subresource=status")

    def _patch(self, body: dict[str, Any], *flags: str) -> None:
        self.kubectl("patch", "node", NODE, "--type=merge", *flags, "--patch", json.dumps(body))

    def _apply(self, text: str) -> None:
        argv = ["apply", "--server-side", "--force-conflicts", "--field-manager=pinwheel", "-f", "-"]
        self.kubectl(*argv, stdin=text, what="installing the cluster's own objects")

    def _filled(self, text: str) -> str:
        """A manifest with the places filled in that are known only here."""
        values = {"DOMAIN": DOMAIN, "DNS_SERVICE": str(DNS_SERVICE), "VOLUMES": str(self._home.volumes)}

        def fill(place: re.Match[str]) -> str:
            name, _, argument = place[1].partition(":")
            return self._programs.image(argument) if name == "IMAGE" else values[name]

        return re.sub(r"\$\{([A-Z_]+(?::[a-z-]+)?)\}", fill, text)

    def _argo(self) -> str:
        """Argo's own manifests with our changes (k8s/argo-install), from the programs' images."""
        folder = self._home.root / "argo"
        container = "/spec/template/spec/containers/0"
        images = [
            {"op": "replace", "path": f"{container}/image", "value": self._programs.image("workflow-controller")},
            {"op": "add", "path": f"{container}/args/-", "value": f"--executor-image={self._programs.image('argoexec')}"},
            {"op": "add", "path": "/metadata/labels", "value": dict([_LABEL.split("=")])},
        ]
        body = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(self._programs.argo / "namespace-install", folder)],
            "components": [os.path.relpath(paths.K8S / "argo-install", folder)],
            "patches": [{"target": {"kind": "Deployment", "name": "workflow-controller"}, "patch": json.dumps(images)}],
        }
        write_whole(folder / "kustomization.yaml", json.dumps(body))
        return self.kubectl("kustomize", str(folder), what="putting Argo's manifests together")

    def _call(self, *arguments: str, stdin: str | None = None, what: str = "") -> Result:
        return run(
            [self._programs.kubectl, f"--kubeconfig={self._home.kubeconfig}", *arguments],
            stdin=stdin,
            env={**single_node.without_proxy(), "KUBECONFIG": None},
            error=MissingEnvironmentError if what else None,
            what=what,
            fix=_LOG if what else "",
        )
