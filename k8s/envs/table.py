"""`invoke envs`: all environments side by side, so that what differs between two of them is seen at a glance."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from common import console, paths
from k8s.envs import environment
from k8s.envs.environment import ClusterTarget, DirectoryTarget, Environment

# What clusters differ in, and what only a directory has otherwise.
_DIFFERS, _ELSEWHERE = "≠", "·"


def settings(env: Environment) -> dict[str, str]:
    """An environment as what its keys come to, defaults written out."""
    match env.target:
        case DirectoryTarget(path):
            found = {"target": f"directory {paths.shown(path)}", "target namespace": ""}
        case ClusterTarget(context, namespace, kubeconfig):
            found = {"target": f"context {context}", "target namespace": namespace or "the first of the set"}
            found |= {"target kubeconfig": kubeconfig} if kubeconfig else {}
    found |= {"registry": env.registry, **env.network.rows(), "kubernetes": env.kubernetes}
    gate = env.proof
    found["proof"] = "none" if gate is None else "refuses" if gate.refuse else "warns"
    if gate:
        found["proof key"] = gate.signers.named()
        for one in dataclasses.fields(gate.policy):
            found[f"proof {one.name.replace('_', '-')}"] = _text(getattr(gate.policy, one.name))
        audit = gate.audit
        said = f"no defect worse than {audit.max_severity}, by data of {audit.max_age_days} days" if audit else "not asked"
        found["proof audit"] = said
    for (namespace, name), keys in sorted(env.secrets.items()):
        found[f"secret {namespace}/{name}"] = ", ".join(sorted(keys))
    for there, keys in sorted(env.elsewhere.items()):
        found[" ".join(filter(None, ("made elsewhere", there[0], "/".join(filter(None, there[1:])))))] = ", ".join(sorted(keys))
    for entry in env.accepted:
        found[f"accepts {entry.rule} {entry.object}"] = f"until {entry.until}: {entry.reason}"
    found["accelerator"] = "nvidia" if env.gpu else "none"
    if env.model:
        found["model"] = str(env.model.reference)
        found["model key"] = env.model.signers.named() if env.model.signers else "none"
    if allowed := env.without_proof:
        found["without-proof"] = f"{', '.join(sorted(allowed.people)) or 'anybody'}, {allowed.hours} hours"
    for other in env.other_images:
        found[f"other image {other.reference}"] = other.text()
    for place, model in sorted(env.models.items()):
        found[f"model {place}"] = str(model.reference)
        found[f"model key {place}"] = model.signers.named() if model.signers else "none"
    found["gpu-labels"] = "nvidia" if env.gpu_labels else "none"
    found |= env.settings.rows()
    return found


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, frozenset):
        return ", ".join(sorted(value))
    return "" if value is None else str(value)


def rows(envs: Sequence[Environment]) -> list[tuple[str, ...]]:
    """One row for each setting: its mark, its name, its value in each environment.

    Args:
        envs: in the order of the columns.
    """
    columns = [settings(env) for env in envs]
    names = list(dict.fromkeys(name for column in columns for name in column))
    result = []
    for name in names:
        values = [column.get(name, "") or "-" for column in columns]
        clusters = {value for value, env in zip(values, envs, strict=True) if isinstance(env.target, ClusterTarget)}
        mark = _DIFFERS if len(clusters) > 1 else _ELSEWHERE if len(set(values)) > 1 else ""
        result.append((mark, name, *values))
    return result


def show() -> str:
    """Print the table of all environments.

    Returns:
        The outcome in a few words.

    Raises:
        UsageError: one of them is wrong.
    """
    envs = [environment.load(name) for name in environment.names()]
    found = rows(envs)
    console.table(("", "setting", *(env.name for env in envs)), found)
    differing = sum(row[0] == _DIFFERS for row in found)
    console.info(f"{_DIFFERS} differs between clusters, {_ELSEWHERE} only between them and a directory")
    return f"{len(envs)} environments; clusters differ in {differing} of {len(found)} settings"
