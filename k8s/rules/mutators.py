"""Rules about objects that have pods changed when they are made: after every check, to any image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from k8s.envs.environment import Environment
from k8s.objects.findings import Finding, rule
from k8s.objects.manifests import Manifest
from k8s.objects.pods import mapping

KINDS = {"MutatingWebhookConfiguration", "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"}


def _changes(manifest: Manifest) -> bool:
    """Whether an object has others changed when they are made, or read: a kind's conversion may be a program's."""
    conversion = mapping(mapping(manifest.body.get("spec")).get("conversion"))
    return manifest.kind in KINDS or (manifest.kind == "CustomResourceDefinition" and conversion.get("strategy") == "Webhook")


@rule("mutator")
def check(objects: Sequence[Manifest], env: Environment) -> Iterator[Finding]:
    """Each of these objects that the environment does not name, and each name that means none of the kinds."""
    for manifest in objects:
        called = f"{manifest.kind}/{manifest.name}"
        if _changes(manifest) and called not in env.mutators:
            what = "it has objects changed after they were checked: another image, another command"
            yield manifest.finding((), what, f"leave it out, or name it in {env.file}: `mutators: [{called}]`")
