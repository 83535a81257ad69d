"""All rules, one after the other, over a whole set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from k8s.envs.environment import Environment
from k8s.objects.findings import Finding
from k8s.objects.schema import Walk
from k8s.rules import (
    egress,
    leaks,
    limits,
    mutators,
    objects,
    pod_security,
    pods,
    policies,
    quotas,
    references,
    security,
    workflow,
    workflow_scripts,
    workflow_sent,
    workflow_values,
)
from k8s.rules.whole_set import WholeSet


def check(walks: Sequence[Walk], env: Environment) -> Iterator[Finding]:
    """What the rules find, within objects and between them. What does not fit its schema is in the walks, not here.

    Args:
        walks: of the manifests, in order.
        env: the environment they are for.
    """
    written = [walk.manifest for walk in walks]
    sent_later = [inner.manifest for walk in walks for inner in walk.inner]  # By workflows, while they run.
    whole = WholeSet.of_walks(walks, env)
    yield from objects.check(walks)
    yield from mutators.check([*written, *sent_later], env)
    yield from limits.check([*walks, *(inner for walk in walks for inner in walk.inner)])
    yield from pods.check([*written, *sent_later], whole)
    yield from security.check([*written, *sent_later])
    yield from pod_security.check([*written, *sent_later])
    yield from leaks.check([*walks, *(inner for walk in walks for inner in walk.inner)])
    yield from references.check(walks, whole)
    yield from policies.check(walks, whole)
    yield from egress.check(whole)
    yield from quotas.check(whole)
    yield from workflow.check(walks)
    yield from workflow_values.check(walks)
    yield from workflow_scripts.check(written)
    yield from workflow_sent.check(walks)
