"""Rules about policies and what they are about: network policies, disruption budgets, Ingresses, autoscalers.

A policy that selects nothing, or is overruled by a field beside it, is taken by every server and protects nobody.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from k8s.objects.findings import Finding, Path, rule
from k8s.objects.manifests import Manifest
from k8s.objects.pods import Template, items, mapping
from k8s.objects.schema import Part, Walk
from k8s.rules.whole_set import WholeSet, port_names, target, words


def check(walks: Sequence[Walk], known: WholeSet) -> Iterator[Finding]:
    """What is wrong with the policies among these objects."""
    scaled: dict[tuple[str, str, str], Manifest] = {}
    for walk in walks:
        manifest = walk.manifest
        if walk.custom:
            continue
        match manifest.kind:
            case "NetworkPolicy":
                yield from _network(manifest, known)
            case "PodDisruptionBudget":
                yield from _budget(manifest, known)
            case "Ingress":
                yield from _ingress(walk, known)
            case "HorizontalPodAutoscaler":
                yield from _scaled_once(manifest, scaled.setdefault((manifest.namespace, *target(manifest)), manifest))


@rule("autoscaler")
def _scaled_once(manifest: Manifest, first: Manifest) -> Iterator[Finding]:
    if first is not manifest:
        what = f"scales what {first.title} scales already"
        yield manifest.finding(("spec", "scaleTargetRef"), what, "keep one; two take turns in undoing each other")


def _shown(selector: Mapping[str, Any]) -> str:
    plain = [f"{key}={value}" for key, value in mapping(selector.get("matchLabels")).items()]
    return ", ".join([*plain, *(str(one.get("key")) for one in items(selector, "matchExpressions"))])


@rule("network-policy")
def _network(manifest: Manifest, known: WholeSet) -> Iterator[Finding]:
    spec = mapping(manifest.body.get("spec"))
    selector = mapping(spec.get("podSelector"))
    chosen = known.selected(manifest.namespace, selector)
    if selector and not chosen and manifest.namespace not in known.others:
        what = f"selects no pod of this set ({_shown(selector)}), so it protects none"
        yield manifest.finding(("spec", "podSelector"), what, "write the labels of the pod template")
    types = spec.get("policyTypes")
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        rules = items(spec, direction)
        if rules and isinstance(types, list) and direction.capitalize() not in types:
            what = f"{direction} rules, and policyTypes does not name {direction.capitalize()}: they are not looked at"
            yield manifest.finding(("spec", direction), what, f"add {direction.capitalize()} to policyTypes")
        for number, one in enumerate(rules):
            path: Path = ("spec", direction, number)
            for index, peer in enumerate(items(one, peers)):
                yield from _peer(manifest, (*path, peers, index), peer)
            if direction == "ingress" and selector:
                yield from _ports(manifest, path, one, chosen)


@rule("network-policy-peer")
def _peer(manifest: Manifest, path: Path, peer: Mapping[str, Any]) -> Iterator[Finding]:
    block = mapping(peer.get("ipBlock"))
    if block and (set(peer) - {"ipBlock"}):
        yield manifest.finding(path, "ipBlock and a selector in one peer", "give each a list item of its own")
    if not peer:
        yield manifest.finding(path, "an empty peer", "write a selector or an ipBlock; leave out the list to mean everybody")
    if not block:
        return
    whole = _network_of(block.get("cidr"))
    if whole is None:
        yield manifest.finding((*path, "ipBlock", "cidr"), f"{block.get('cidr')!r} is no network", "write it like 10.0.0.0/8")
    for number, text in enumerate(words(block.get("except"))):
        part = _network_of(text)
        if part is None or (whole is not None and not (part.version == whole.version and part.subnet_of(whole))):  # type: ignore[arg-type]  # same version
            what = f"{text!r} is no network inside {block.get('cidr')}"
            yield manifest.finding((*path, "ipBlock", "except", number), what, "write a part of it, like 10.0.0.0/8")


def _network_of(text: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """A network as the API server takes it: no bits beyond the mask."""
    try:
        return ipaddress.ip_network(str(text)) if "/" in str(text) else None
    except ValueError:
        return None


@rule("network-policy-ports")
def _ports(manifest: Manifest, path: Path, allowed: Mapping[str, Any], chosen: Sequence[Template]) -> Iterator[Finding]:
    declared = sorted({name for template in chosen for name in port_names(template)})
    for number, port in enumerate(items(allowed, "ports")):
        if chosen and isinstance(port.get("port"), str) and port["port"] not in declared:
            what = f"lets in to port {port['port']}, which no selected pod has"
            yield manifest.finding(
                (*path, "ports", number, "port"), what, f"the pods' ports are: {', '.join(declared) or 'none'}"
            )


@rule("disruption-budget")
def _budget(manifest: Manifest, known: WholeSet) -> Iterator[Finding]:
    spec = mapping(manifest.body.get("spec"))
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if (least is None) == (most is None):
        both = "neither minAvailable nor maxUnavailable" if least is None else "both minAvailable and maxUnavailable"
        yield manifest.finding(("spec",), both, "write maxUnavailable: 1")
    chosen = known.selected(manifest.namespace, mapping(spec.get("selector")))
    if not chosen and manifest.namespace not in known.others:
        shown = _shown(mapping(spec.get("selector")))
        yield manifest.finding(
            ("spec", "selector"), f"selects no pod of this set ({shown})", "write the labels of the pod template"
        )
    fix = "write maxUnavailable: 1"
    if str(most) in {"0", "0%"} or least == "100%":
        yield manifest.finding(("spec",), "no pod may ever be evicted, so no node can be drained", fix)
    if isinstance(least, int) and chosen:
        few = sum(known.replicas(template.manifest)[0] for template in chosen)
        if least >= few:
            what = f"minAvailable {least} of {few} pod{'s' if few != 1 else ''}: none may be evicted, so no node can be drained"
            yield manifest.finding(("spec", "minAvailable"), what, fix)


@rule("ingress")
def _ingress(walk: Walk, known: WholeSet) -> Iterator[Finding]:
    manifest = walk.manifest
    notes = mapping(manifest.metadata.get("annotations"))
    certified = any("cert" in key for key in notes)
    for part in walk.parts:
        if part.definition == "IngressServiceBackend":
            yield from _backend(manifest, part, known)
        if part.definition == "IngressTLS":
            name = str(part.body.get("secretName") or "")
            there = known.env.secrets.keys() | {place[1:] for place in known.made}
            there |= {(other.namespace, other.name) for other in known.of("Secret", manifest.namespace)}
            if name and not certified and (manifest.namespace, name) not in there:
                fix = f"make it outside of git and name it under `secrets` in {known.env.file}, or have cert-manager make it"
                yield manifest.finding((*part.path, "secretName"), f"no Secret {manifest.namespace}/{name}", fix)
    if not mapping(manifest.body.get("spec")).get("tls") and not certified:
        what = "no TLS: keys and prompts would cross the network for all to read"
        yield manifest.finding(("spec",), what, "write tls, or annotate it with the certificate that your controller makes")


@rule("ingress-backend")
def _backend(manifest: Manifest, part: Part, known: WholeSet) -> Iterator[Finding]:
    name, port = str(part.body.get("name", "")), mapping(part.body.get("port"))
    service = next((other for other in known.of("Service", manifest.namespace) if other.name == name), None)
    if service is None and manifest.namespace in known.others:
        return
    if service is None:
        yield manifest.finding(
            (*part.path, "name"), f"no Service {manifest.namespace}/{name}", "an Ingress sees its own namespace only"
        )
        return
    ports = items(mapping(service.body.get("spec")), "ports")
    names, numbers = [held.get("name") for held in ports], [held.get("port") for held in ports]
    if port.get("name") not in [None, *names] or port.get("number") not in [None, *numbers] or not port:
        shown = ", ".join(map(str, [*filter(None, names), *numbers]))
        what = f"{service.title} has no port {port.get('name') or port.get('number')}"
        yield manifest.finding((*part.path, "port"), what, f"its ports are: {shown}")
