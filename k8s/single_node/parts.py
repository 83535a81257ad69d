"""The programs of the node, their command lines and configuration files. What is not said here is their default."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.files import write_whole
from common.single_node import API_PORT, NODE_ADDRESS, REGISTRY
from common.tools import CNI_PLUGINS
from k8s.single_node.places import CGROUP, CONTAINERD, DNS_SERVICE, DOMAIN, NODE, PODS, SERVICES, Home
from k8s.single_node.programs import Programs

_ETCD = "127.0.0.1:2379"
# Not before the server has made the roles of its clients.
_API = f"https://127.0.0.1:{API_PORT}/readyz"
_LABELS = "pinwheel.io/single-node=true"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    argv: tuple[str, ...]
    wait: str = ""

    def json(self) -> dict[str, Any]:
        return {"name": self.name, "argv": list(self.argv), "wait": self.wait}


def prepare(home: Home, programs: Programs, extras: Iterable[str]) -> dict[str, Any]:
    """Write the configuration files; returns what the first process inside is to do (inside.py)."""
    for folder in (home.root, home.config / "cni", home.config / "certs.d" / REGISTRY, home.volumes, home.root / "etcd"):
        folder.mkdir(parents=True, exist_ok=True)
    # etcd insists on it.
    (home.root / "etcd").chmod(0o700)
    for name, body in _files(home, programs).items():
        write_whole(home.config / name, body if isinstance(body, str) else json.dumps(body, indent=1) + "\n")
    return {
        "folders": [str(home.root), str(programs.folder)],
        "node": str(NODE_ADDRESS),
        "services": str(SERVICES),
        "logs": str(home.logs),
        "path": f"{programs.bin}:{_PATH}",
        "parts": [part.json() for part in _parts(home, programs, set(extras))],
    }


def _parts(home: Home, programs: Programs, extras: set[str]) -> list[_Part]:
    keys, config = home.certificates, home.config

    def part(name: str, *flags: str, wait: str = "", kubeconfig: str = "", folder: Path = programs.bin) -> _Part:
        access = [f"--kubeconfig={keys}/{kubeconfig}.kubeconfig"] if kubeconfig else []
        return _Part(name, (str(folder / name), *access, *flags), wait)

    parts = [
        part(
            "etcd",
            f"--name={NODE}",
            f"--data-dir={home.root}/etcd",
            f"--listen-client-urls=https://{_ETCD}",
            f"--advertise-client-urls=https://{_ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            f"--cert-file={keys}/etcd.crt",
            f"--key-file={keys}/etcd.key",
            "--client-cert-auth",
            f"--trusted-ca-file={keys}/ca.crt",
            "--auto-compaction-retention=1h",
            "--log-level=warn",
        ),
        part("containerd", f"--config={config}/containerd.toml"),
        part(
            "kube-apiserver",
            f"--advertise-address={NODE_ADDRESS.ip}",
            f"--secure-port={API_PORT}",
            f"--etcd-servers=https://{_ETCD}",
            f"--etcd-cafile={keys}/ca.crt",
            f"--etcd-certfile={keys}/apiserver-client.crt",
            f"--etcd-keyfile={keys}/apiserver-client.key",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--client-ca-file={keys}/ca.crt",
            f"--tls-cert-file={keys}/apiserver.crt",
            f"--tls-private-key-file={keys}/apiserver.key",
            f"--kubelet-certificate-authority={keys}/ca.crt",
            f"--kubelet-client-certificate={keys}/apiserver-client.crt",
            f"--kubelet-client-key={keys}/apiserver-client.key",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
            f"--service-account-key-file={keys}/service-accounts.pub",
            f"--service-account-signing-key-file={keys}/service-accounts.key",
            f"--requestheader-client-ca-file={keys}/front-proxy-ca.crt",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={keys}/front-proxy-client.crt",
            f"--proxy-client-key-file={keys}/front-proxy-client.key",
            # Straight to the pods of an extended API server.
            "--enable-aggregator-routing=true",
            wait=_ETCD,
        ),
        part(
            "kube-controller-manager",
            f"--authentication-kubeconfig={keys}/controller-manager.kubeconfig",
            f"--authorization-kubeconfig={keys}/controller-manager.kubeconfig",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={keys}/service-accounts.key",
            f"--root-ca-file={keys}/ca.crt",
            f"--cluster-signing-cert-file={keys}/ca.crt",
            f"--cluster-signing-key-file={keys}/ca.key",
            "--allocate-node-cidrs=true",
            f"--cluster-cidr={PODS}",
            # One node has it all.
            f"--node-cidr-mask-size={PODS.prefixlen}",
            f"--flex-volume-plugin-dir={home.root}/plugins",
            wait=_API,
            kubeconfig="controller-manager",
        ),
        part(
            "kube-scheduler",
            f"--authentication-kubeconfig={keys}/scheduler.kubeconfig",
            f"--authorization-kubeconfig={keys}/scheduler.kubeconfig",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            wait=_API,
            kubeconfig="scheduler",
        ),
        part(
            "kubelet",
            f"--config={config}/kubelet.json",
            f"--root-dir={home.root}/kubelet",
            f"--hostname-override={NODE}",
            f"--node-ip={NODE_ADDRESS.ip}",
            f"--node-labels={_LABELS}",
            wait=str(CONTAINERD),
            kubeconfig="kubelet",
        ),
        part("kube-proxy", f"--config={config}/proxy.json", wait=_API),
    ]
    if "policies" in extras:
        parts.append(
            part(
                "kube-router",
                "--run-firewall=true",
                "--run-router=false",
                "--run-service-proxy=false",
                "--run-loadbalancer=false",
                "--enable-cni=false",
                f"--hostname-override={NODE}",
                f"--service-cluster-ip-range={SERVICES}",
                wait=_API,
                kubeconfig="policies",
                folder=programs.extra_bin("policies"),
            )
        )
    return parts


def _files(home: Home, programs: Programs) -> dict[str, str | Mapping[str, Any]]:
    """The configuration files by name."""
    # A root without this capability cannot lower the score by which the kernel chooses what to kill, and runc fails over it.
    restricted = not _capable("CAP_SYS_RESOURCE")
    keys = home.certificates
    return {
        "containerd.toml": f"""version = 3
root = "{home.root}/containerd"
state = "{CONTAINERD.parent}"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "{CONTAINERD}"
[plugins."io.containerd.internal.v1.opt"]
path = "{home.root}/opt"
[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{programs.image("pause")}"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "{home.config}/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = {str(restricted).lower()}
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{CNI_PLUGINS}"]
conf_dir = "{home.config}/cni"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
""",
        f"certs.d/{REGISTRY}/hosts.toml": f'server = "https://{REGISTRY}"\nca = "{keys}/registry-ca.crt"\n',
        "cni/pinwheel.conflist": {
            "cniVersion": "1.0.0",
            "name": "pinwheel",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": True,
                    # Towards the registry all pods have the node's address.
                    "ipMasq": True,
                    "hairpinMode": True,
                    "ipam": {"type": "host-local", "ranges": [[{"subnet": str(PODS)}]], "routes": [{"dst": "0.0.0.0/0"}]},
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        },
        # No name server: CoreDNS has the cluster's names, and there is no other network.
        "resolv.conf": "",
        "kubelet.json": {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{keys}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{keys}/kubelet.crt",
            "tlsPrivateKeyFile": f"{keys}/kubelet.key",
            "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{CGROUP}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "clusterDNS": [str(DNS_SERVICE)],
            "clusterDomain": DOMAIN,
            "resolvConf": f"{home.config}/resolv.conf",
            "podLogsDir": f"{home.root}/pod-logs",
            "volumePluginDir": f"{home.root}/plugins",
            "serializeImagePulls": False,
            # The machine's disk is not the cluster's alone: a disk that is rather full is no reason to remove images, some of
            # which nobody could bring back, or to evict pods.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        },
        "proxy.json": {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": f"{keys}/proxy.kubeconfig"},
            "hostnameOverride": NODE,
            "mode": "nftables",
            "clusterCIDR": str(PODS),
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            # Limits of the whole machine, which are not the cluster's to change.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        },
    }


def _capable(name: str) -> bool:
    """Whether this process may have a capability (<linux/capability.h>)."""
    numbers = {"CAP_SYS_RESOURCE": 24}
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> numbers[name] & 1)
