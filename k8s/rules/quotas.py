"""Rules about quotas and limit ranges: what they allow is enough for the set, and they count what they seem to count.

The server refuses pods, not workloads: a Deployment beyond its quota is taken, and then waits for pods that never come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from k8s.objects import argo_schema
from k8s.objects.findings import Finding, Path, rule
from k8s.objects.manifests import Manifest
from k8s.objects.pods import items, mapping
from k8s.objects.quantity import quantity
from k8s.rules.whole_set import WholeSet

# What a namespace's quota counts of each container, by the quota's name: the group and the name there.
_COMPUTE = {
    "cpu": ("requests", "cpu"),
    "memory": ("requests", "memory"),
    "requests.cpu": ("requests", "cpu"),
    "requests.memory": ("requests", "memory"),
    "limits.cpu": ("limits", "cpu"),
    "limits.memory": ("limits", "memory"),
}
_SERVICES = {
    "services": {"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"},
    "services.loadbalancers": {"LoadBalancer"},
    "services.nodeports": {"NodePort", "LoadBalancer"},
}


def check(known: WholeSet) -> Iterator[Finding]:
    """What the quotas and limit ranges of a set do not allow it."""
    for manifest in known.objects:
        if manifest.kind == "ResourceQuota":
            yield from _quota(manifest, known)
        if manifest.kind == "LimitRange":
            yield from _limits(manifest, known)


@rule("quota")
def _quota(manifest: Manifest, known: WholeSet) -> Iterator[Finding]:
    spec = mapping(manifest.body.get("spec"))
    for name, written in mapping(spec.get("hard")).items():
        path: Path = ("spec", "hard", name)
        hard = quantity(written)
        if "/" in name and not name.startswith(("requests.", "count/")) and not name.endswith("requests.storage"):
            what = f"a quota of {name} counts nothing: devices are counted by their requests"
            yield manifest.finding(path, what, f"write requests.{name.removeprefix('limits.')}")
            continue
        # With scopes it counts some pods only.
        if hard is None or spec.get("scopes") or spec.get("scopeSelector"):
            continue
        if name in _SERVICES:
            found = [other for other in known.of("Service", manifest.namespace) if _type(other) in _SERVICES[name]]
            if len(found) > hard:
                what = f"{name} {written}, and the set has {len(found)} ({', '.join(other.name for other in found)})"
                yield manifest.finding(path, what, "raise it, or make them ClusterIP")
        elif name in _COMPUTE or name.startswith("requests."):
            group, resource = _COMPUTE.get(name, ("requests", name.removeprefix("requests.")))
            if resource == "storage" or "storageclass" in resource:
                continue
            yield from _counted(manifest, path, hard, group, resource, known)


def _type(service: Manifest) -> str:
    return str(mapping(service.body.get("spec")).get("type") or "ClusterIP")


@rule("quota")
def _counted(manifest: Manifest, path: Path, hard: Decimal, group: str, resource: str, known: WholeSet) -> Iterator[Finding]:
    defaults = {
        name
        for other in known.of("LimitRange", manifest.namespace)
        for limit in items(mapping(other.body.get("spec")), "limits")
        for name in {**mapping(limit.get("default")), **mapping(limit.get("defaultRequest" if group == "requests" else ""))}
    }
    total, who = Decimal(0), []
    flows: dict[str, Decimal] = {}
    for template in known.templates:
        if template.manifest.namespace != manifest.namespace:
            continue
        asked: list[tuple[str, Decimal]] = []
        for kind, place, container in template.grouped():
            said = mapping(container.get("resources"))
            held = mapping(said.get(group)).get(resource)
            if held is None and group == "requests":
                held = mapping(said.get("limits")).get(resource)  # The server takes the limit for the request.
            if held is None and "/" not in resource and resource not in defaults:
                what = f"no {group[:-1]} for {resource}, which {manifest.title} counts: the pod would be refused"
                yield template.manifest.finding((*place, "resources"), what, f"write {group}.{resource}")
            asked.append(
                ("sidecars" if kind == "initContainers" and _stays(container) else kind, quantity(held or 0) or Decimal(0))
            )
        pod = _at_once(asked) + (quantity(mapping(template.spec.get("overhead")).get(resource, 0)) or Decimal(0))
        most = known.replicas(template.manifest)[1]
        if template.manifest.api_version == argo_schema.API_VERSION:
            flows[template.manifest.title] = max(pod, flows.get(template.manifest.title, Decimal(0)))
            continue
        total += pod * most
        if pod:
            who.append(f"{template.manifest.title} {most} × {pod.normalize():f}")
    # One after the other is how steps run; a workflow counts as its largest pod.
    total += sum(flows.values(), Decimal(0))
    who += [f"{title} {pod.normalize():f}" for title, pod in flows.items() if pod]
    if total > hard:
        demand = f"{total.normalize():f} ({'; '.join(who)})"
        what = f"{manifest.title} allows {resource} {hard.normalize():f}, the set may ask for {demand}"
        yield manifest.finding(path, what, "raise the quota, or lower replicas, maxReplicas or the requests")


def _stays(container: Mapping[str, Any]) -> bool:
    """Whether an init container is a native sidecar: it runs on beside those after it."""
    return container.get("restartPolicy") == "Always"


def _at_once(asked: Sequence[tuple[str, Decimal]]) -> Decimal:
    """What a pod asks for at once: its containers and sidecars, or an init container and the sidecars before it."""
    most = sidecars = main = Decimal(0)
    for kind, amount in asked:
        if kind == "sidecars":
            sidecars += amount
            most = max(most, sidecars)
        elif kind == "initContainers":
            most = max(most, sidecars + amount)
        elif kind == "containers":
            main += amount
    return max(most, sidecars + main)


@rule("limit-range")
def _limits(manifest: Manifest, known: WholeSet) -> Iterator[Finding]:
    for number, limit in enumerate(items(mapping(manifest.body.get("spec")), "limits")):
        if limit.get("type") != "Container":
            continue
        for bound, group, wrong in (("max", "limits", "more"), ("min", "requests", "less")):
            for resource, written in mapping(limit.get(bound)).items():
                for template in known.selected(manifest.namespace, {}):
                    for path, container in template.containers():
                        held = mapping(mapping(container.get("resources")).get(group)).get(resource)
                        mine, theirs = quantity(held if held is not None else ""), quantity(written)
                        if mine is None or theirs is None or (mine <= theirs if bound == "max" else mine >= theirs):
                            continue
                        what = f"{resource} {held} is {wrong} than {manifest.title} allows ({written}, limits[{number}])"
                        fix = "the pod would be refused: mend one of the two"
                        yield template.manifest.finding((*path, "resources", group, resource), what, fix)
