"""Rules about where pods may go: those that speak to the registry or the API server are let out to its port.

Judged by ports alone: which address a name stands for nobody knows before the cluster is asked. Only pods are judged whose
namespace is in the set; of a part of a set nobody knows which policies lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from k8s.envs.network import API_SERVER, PURPOSES, REGISTRY
from k8s.objects import argo_schema, pods
from k8s.objects.findings import Finding, rule
from k8s.objects.manifests import Manifest
from k8s.objects.pods import Template, items, mapping
from k8s.rules.whole_set import WholeSet, matches, words

# Says of a NetworkPolicy what the ports of its egress rules are for; they are replaced by the environment's.
MARK = "pinwheel.io/ports"
# Tells pods how the registry is reached: who mounts it speaks to the registry.
CONFIG_MAP = "pinwheel-registry"


def marked(manifest: Manifest) -> tuple[str, ...]:
    """What a NetworkPolicy's mark names; nothing where there is none."""
    written = mapping(manifest.metadata.get("annotations")).get(MARK)
    return tuple(word.strip() for word in written.split(",")) if isinstance(written, str) else ()


def speaks_to_registry(template: Template) -> bool:
    """Whether the pods are told how the registry is reached."""
    return CONFIG_MAP in pods.config_maps(template.spec)


@rule("egress")
def check(known: WholeSet) -> Iterator[Finding]:
    """Which marks mean nothing, and which pods cannot get where they must."""
    policies = [manifest for manifest in known.objects if manifest.kind == "NetworkPolicy"]
    for policy in policies:
        yield from _mark(policy)
    whole = {manifest.name for manifest in known.objects if manifest.kind == "Namespace"}
    said: set[tuple[str, str, str]] = set()
    for template in known.templates:
        # A pod in the node's own network is not held back.
        if template.manifest.namespace not in whole or template.spec.get("hostNetwork"):
            continue
        deciding = [policy for policy in policies if decides(policy, template)]
        for purpose in _needs(template, known):
            ports = known.env.network.ports[purpose]
            if not deciding or any(_lets_out(policy, port) for policy in deciding for port in ports):
                continue
            policy = max(deciding, key=lambda one: (purpose in marked(one), _has_port(one)))
            key = (policy.title, template.manifest.title, purpose)
            if key not in said:
                said.add(key)
                shown = " or ".join(map(str, ports))
                what = f"no policy lets the pods of {template.manifest.title} out to port {shown} of the {_CALLED[purpose]}"
                fix = f"add the port here, or the annotation {MARK}: {purpose} to a policy for it"
                yield policy.finding(("spec", "egress"), what, fix)


_CALLED = {REGISTRY: "registry", API_SERVER: "API server"}


@rule("egress-mark")
def _mark(policy: Manifest) -> Iterator[Finding]:
    for name in marked(policy):
        if name not in PURPOSES:
            what = f"{name!r} says nothing about ports"
            yield policy.finding(("metadata", "annotations", MARK), what, f"write one or more of {', '.join(PURPOSES)}")
    if marked(policy) and not items(mapping(policy.body.get("spec")), "egress"):
        what = "a mark for the ports of egress rules, and there are none"
        yield policy.finding(("metadata", "annotations", MARK), what, "remove it, or write the rules")


def _needs(template: Template, known: WholeSet) -> Iterator[str]:
    if speaks_to_registry(template):
        yield REGISTRY
    # Argo's executor stands beside every step and reports there.
    if template.manifest.api_version == argo_schema.API_VERSION or _has_token(template, known):
        yield API_SERVER


def _has_token(template: Template, known: WholeSet) -> bool:
    """Whether somebody asked for a token of the API; that one comes by default says nothing about who uses it."""
    asked = template.spec.get("automountServiceAccountToken")
    if asked is None:
        name = template.spec.get("serviceAccountName", "default")
        accounts = known.of("ServiceAccount", template.manifest.namespace)
        asked = next((one.body.get("automountServiceAccountToken") for one in accounts if one.name == name), None)
    return asked is True


def decides(policy: Manifest, template: Template) -> bool:
    """Whether a policy holds back what these pods send, but for what it lets out."""
    spec = mapping(policy.body.get("spec"))
    types = spec.get("policyTypes")
    out = "Egress" in words(types) if types is not None else bool(spec.get("egress"))
    return (
        out
        and policy.namespace == template.manifest.namespace
        and matches(mapping(spec.get("podSelector")), template.labels, template.added)
    )


def _rules(policy: Manifest) -> list[Mapping[str, Any]]:
    return items(mapping(policy.body.get("spec")), "egress")


def _lets_out(policy: Manifest, port: int) -> bool:
    """Whether a rule lets out TCP to a port: by number or range, or without saying; what a name stands for may be it."""
    return any(not allowed.get("ports") or any(_is(one, port) for one in items(allowed, "ports")) for allowed in _rules(policy))


def _is(written: Mapping[str, Any], port: int) -> bool:
    first = written.get("port")
    if written.get("protocol", "TCP") != "TCP":
        return False
    if not isinstance(first, int):
        return True
    last = written.get("endPort", first)
    return first <= port <= last if isinstance(last, int) else True


def _has_port(policy: Manifest) -> int:
    """How likely the port is to be missing here: best where others but the name servers' are let out."""
    ports = [one.get("port") for allowed in _rules(policy) for one in items(allowed, "ports")]
    return 2 if any(port != 53 for port in ports) else 1 if ports else 0
