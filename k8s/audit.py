"""`invoke audit --env NAME`: what really runs there, against the advisories of today."""

from __future__ import annotations

from common import console
from common.errors import PinwheelError, UsageError
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget
from k8s.objects.pods import items, mapping
from k8s.prepare import checked
from k8s.rollouts import live_model
from k8s.rollouts.kubectl import Kubectl, Patience, listed, refusal
from lockfiles.audit import run
from lockfiles.audit.model import Package
from lockfiles.audit.report import Audit
from oci.reference import ImageRef
from registry import contents, signer


def audit(env_name: str, *, patience: Patience | None = None) -> Audit:
    """Audit the images that the pods of an environment run.

    Args:
        env_name: one of `k8s/envs/`.
        patience: how long to wait for the cluster.

    Raises:
        UsageError: the environment is unknown, no cluster, or asks for no proof, so that no SBOM can be trusted.
        MissingEnvironmentError: no kubectl, no such context, no answer; or there is no advisory data.
        PolicyError: the cluster does not let us list its pods.
    """
    env = environment.load(env_name)
    if not isinstance(env.target, ClusterTarget):
        raise UsageError(f"nothing runs in {env.where}", where=env.file, fix="audit the locks: `invoke audit`")
    if env.proof is None:
        fix = "name the key of who pushes under `proof`"
        raise UsageError("no proof is asked for, so no SBOM is trusted", where=env.file, fix=fix)
    rendered = live_model.set_from_git(env, checked.locked_images(required=True), patience or Patience())
    kubectl = Kubectl(env.target, patience or Patience())
    kubectl.preflight(env.kubernetes)
    references: set[str] = set()
    for space in sorted({manifest.namespace for manifest in rendered.objects} - {""}):
        answer = kubectl.request(["get", "pods", "-n", space, "-o", "json"])
        if answer.code:
            raise refusal(answer, f"the cluster does not list the pods of {space}", "let your account `list` pods there")
        for pod in listed(answer.stdout):
            spec = mapping(pod.get("spec"))
            for group in ("initContainers", "containers", "ephemeralContainers"):
                references |= {str(container.get("image")) for container in items(spec, group)}
    key = signer.public_key(env.proof.key)
    found: dict[Package, set[str]] = {}
    for reference in sorted(references):
        try:
            pinned, packages = contents.of_image(ImageRef.parse(reference), key, env.network.access())
        except (PinwheelError, ValueError) as problem:
            why = problem.line() if isinstance(problem, PinwheelError) else str(problem)
            console.warn(f"not judged: {reference}: {why}")
            continue
        for package in packages:
            found.setdefault(package, set()).add(str(pinned))
    return run.judge(f"what runs in {env.name}", found)
