"""The gate: an image may be deployed when what is attached to its digest is the proof that the environment asks for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from common import console, host, paths
from common.errors import PolicyError
from common.refs import ImageRef
from k8s.environment import Environment
from smoke.proof import show, signer
from smoke.proof.verify import Findings


def check(images: Iterable[ImageRef], env: Environment) -> tuple[tuple[str, str], ...]:
    """Read the proof of every image from its registry and judge it by the environment's policy.

    Args:
        images: by digest.
        env: the environment; one that asks for no proof lets everything pass, and says so.

    Returns:
        What was found, in short, by image; nothing where no proof is asked for.

    Raises:
        PolicyError: an image does not carry the proof that is asked for; all of them are named.
        RegistryError: a registry cannot be read, or has no such image.
        UsageError: the environment's public key cannot be read.
    """
    gate = env.proof
    if gate is None:
        console.warn(f"no proof is asked for ({env.file}): nobody knows whether these images work")
        return ()
    key = signer.public_key(gate.key)
    if env.registry.partition("/")[0] == host.REGISTRY:
        host.start_registry()
    lacking, proven = [], []
    for image in sorted(set(images), key=str):
        _, found = show.look(image, key, gate.policy)
        if found.holds:
            proven.append((str(image), _text(found)))
            console.info(f"proven       {image}: {_text(found)}")
        else:
            lacking.append((image, "; ".join(f"{one.name} {one.state}: {one.text}" for one in found.wrong)))
    for image, why in lacking:
        console.warn(f"{image}: {why}")
    if lacking and gate.refuse:
        names = ", ".join(str(image) for image, _ in lacking)
        raise PolicyError(
            f"{len(lacking)} image{'s' if len(lacking) > 1 else ''} without the proof {env.name} asks for: {lacking[0][1]}",
            where=f"{names}; key {paths.shown(Path(gate.key))}, policy in {env.file}",
            fix=f"run `invoke smoke{' --gpu' if gate.policy.smoke == 'gpu' else ''} push` for these images; nothing was sent",
        )
    return tuple(sorted([*proven, *((str(image), f"LACKING {why}") for image, why in lacking)]))


def _text(found: Findings) -> str:
    return "; ".join(f"{one.name} {one.text}" for one in found.findings if one.state == "holds" and one.name == "smoke") or (
        f"{sum(one.state == 'holds' for one in found.findings)} kinds of proof hold"
    )
