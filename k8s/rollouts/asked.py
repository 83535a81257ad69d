"""What an environment's cluster says of a set: its API server judges each object as in a deploy, and keeps nothing of it.

The server knows what no check offline can: webhooks, quotas, who owns a field, what may not change. It cannot judge what
goes into a namespace, or is of a kind, that the set itself would make first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from common import console
from k8s.objects import strict_yaml
from k8s.objects.findings import Finding, named
from k8s.objects.manifests import Manifest
from k8s.prepare import preflight
from k8s.rollouts import crds
from k8s.rollouts.conflicts import conflicts
from k8s.rollouts.kubectl import UNSERVED, Kubectl, brief, passing, refusal

_NO_NAMESPACE = re.compile(r'namespaces "([^"]+)" not found')


@dataclass(frozen=True, slots=True)
class Unasked:
    """An object that the server could not judge yet.

    Attributes:
        title: of the object.
        why: what is not there yet.
    """

    title: str
    why: str


@dataclass(frozen=True, slots=True)
class Said:
    """What the server says.

    Attributes:
        findings: what it refuses, sorted.
        unasked: what it could not judge, in the order of the set.
    """

    findings: tuple[Finding, ...]
    unasked: tuple[Unasked, ...]


def ask(kubectl: Kubectl, objects: Sequence[Manifest]) -> Said:
    """Have the server judge every object, by dry runs.

    Args:
        kubectl: of the cluster.
        objects: the set as it would be sent.

    Raises:
        MissingEnvironmentError: the server does not answer.
    """
    # The pipeline tries models in what is there for that alone: it owns nothing in it.
    trials = [one for one in objects if preflight.is_one(one)]
    rest = [one for one in objects if not preflight.is_one(one)]
    brought = crds.brought(objects)
    found: list[Finding] = []
    unasked: dict[str, str] = {}
    absent: set[str] = set()
    for group, force in ((rest, False), (trials, True)):
        # All at once; only a set that is not taken as it stands is asked about piece by piece.
        if not group or not _refused(kubectl, group, force=force):
            continue
        for one in group:
            if one.namespace in absent:
                unasked[one.title] = f"there is no namespace {one.namespace} yet"
                continue
            words = _refused(kubectl, [one], force=force)
            unserved = UNSERVED.findall(words)
            if match := _NO_NAMESPACE.search(words):
                absent.add(match[1])
                unasked[one.title] = f"there is no namespace {match[1]} yet"
            elif unserved and set(unserved) <= brought:
                unasked[one.title] = f"the cluster has no kind {one.kind} yet, which the set brings"
            elif unserved:
                what = f"the cluster has no kind {one.kind} ({one.api_version})"
                found.append(one.finding(("kind",), what, "install what brings it, or add its definition to the set"))
            elif words:
                found += _told(one, words)
    ordered = tuple(Unasked(one.title, unasked[one.title]) for one in objects if one.title in unasked)
    return Said(tuple(sorted(named("server", found))), ordered)


def _refused(kubectl: Kubectl, objects: Sequence[Manifest], *, force: bool) -> str:
    """Why the server does not take these objects, in kubectl's words; empty where it does. Its warnings are printed."""
    answer = kubectl.dry_run(strict_yaml.dump(one.body for one in objects), force=force)
    if not answer.code:
        for line in answer.stderr.splitlines():
            if line.startswith("Warning: "):
                console.warn(f"the server warns: {line.removeprefix('Warning: ')}")
        return ""
    if len(objects) == 1 and passing(answer):
        raise refusal(answer, f"the cluster does not say what it takes ({kubectl.context})", "see its words")
    return f"{answer.stderr}\n" if UNSERVED.search(answer.stderr) or conflicts(answer.stderr) else brief(answer)


def _told(manifest: Manifest, words: str) -> list[Finding]:
    if owned := conflicts(words):
        fix = "take the field out of the manifest, or have its owner let go of it"
        return [manifest.finding((), f"the server refuses it: {one.field} belongs to {one.owner}", fix) for one in owned]
    return [manifest.finding((), f"the server refuses it: {words}", "mend what it names")]
