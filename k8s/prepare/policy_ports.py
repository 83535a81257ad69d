"""The ports that NetworkPolicies let out follow the environment: its registry's, its hub's, its API server's.

A policy says with the annotation `pinwheel.io/ports` what its egress rules are for; the ports of these rules are replaced,
nothing else of them. One without the annotation stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from k8s.envs.network import Network
from k8s.objects import manifests
from k8s.objects.manifests import Manifest
from k8s.objects.pods import items, mapping
from k8s.rules import egress


def apply(objects: Sequence[Manifest], network: Network) -> tuple[Manifest, ...]:
    """The manifests with the ports of the environment.

    Args:
        objects: as written.
        network: of the environment.
    """
    return tuple(_with_ports(manifest, network) if manifest.kind == "NetworkPolicy" else manifest for manifest in objects)


def _with_ports(policy: Manifest, network: Network) -> Manifest:
    # A name that means nothing is for the rules to refuse.
    ports = sorted({port for name in egress.marked(policy) for port in network.ports.get(name, ())})
    for number in range(len(items(mapping(policy.body.get("spec")), "egress")) if ports else 0):
        policy = manifests.with_value(policy, ("spec", "egress", number, "ports"), [{"port": port} for port in ports])
    return policy
