"""`invoke audit --env NAME`: what really runs there, against the advisories of today."""

from __future__ import annotations

from common.errors import PolicyError, RegistryError, UsageError
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget
from k8s.prepare import checked, gate
from k8s.rollouts import live_model, unexpected
from k8s.rollouts.kubectl import Kubectl, Patience
from lockfiles.audit import run
from lockfiles.audit.model import Package
from lockfiles.audit.report import Audit
from oci.reference import ImageRef
from registry import contents


def audit(env_name: str, *, patience: Patience | None = None) -> Audit:
    """Audit the images that the pods of an environment run.

    Args:
        env_name: one of `k8s/envs/`.
        patience: how long to wait for the cluster.

    Raises:
        UsageError: the environment is unknown, no cluster, or asks for no proof, so that no SBOM can be trusted.
        MissingEnvironmentError: no kubectl, no such context, no answer; or there is no advisory data.
        PolicyError: the cluster does not let us list its pods, or none runs.
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
    for space in unexpected.namespaces(rendered):
        pods = unexpected.pods(kubectl, space)
        if pods is None:
            fix = "let your account `list` pods there"
            raise PolicyError(f"the cluster does not list the pods of {space}", where=env.where, fix=fix)
        references |= {reference for pod in pods for reference in unexpected.images(pod)}
    if not references:
        fix = "deploy first, or audit the locks: `invoke audit`"
        raise PolicyError("no pod runs there, so there is nothing to judge", where=env.where, fix=fix)
    gate.reach(env)
    key = env.proof.signers.trust(env.file)
    found: dict[Package, set[str]] = {}
    unread = []
    for reference in sorted(references):
        try:
            pinned, packages = contents.of_image(ImageRef.parse(reference), key, env.network.access())
        except ValueError as problem:
            unread.append(f"{reference}: {problem}")
        except (PolicyError, RegistryError) as problem:
            unread.append(f"{reference}: {problem.what}")
        else:
            for package in packages:
                found.setdefault(package, set()).add(str(pinned))
    if not found:
        fix = "push them with proof, signed by who is named at `proof` there"
        raise PolicyError(f"nothing that runs in {env.name} can be judged: {'; '.join(unread)}", where=env.file, fix=fix)
    return run.judge(f"what runs in {env.name}", found, unread=unread)
