"""The gate: an image may be deployed when what is attached to its digest is the proof that the environment asks for.

And a model when the key signed it that the environment names.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from common import console, host, paths
from common.errors import PolicyError
from k8s.envs.environment import Environment, Model
from oci.reference import ImageRef
from registry import inspect, signer
from registry.policy import Policy
from registry.verify import Findings

# Of a model nobody makes an SBOM, and no smoke ladder runs it: what it is made of says the card inside it.
_SIGNED = Policy(sbom=False, provenance=False, smoke="none")


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
        UsageError: the environment's public key, or its registry's certificate authority, cannot be read.
    """
    gate = env.proof
    if gate is None:
        console.warn(f"no proof is asked for ({env.file}): nobody knows whether these images work")
        return ()
    key = signer.public_key(gate.key)
    _reach(env)
    lacking, proven = [], []
    for image in sorted(set(images), key=str):
        _, found = inspect.look(image, key, gate.policy, env.network.access())
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


def check_model(env: Environment) -> tuple[tuple[str, str], ...]:
    """See that each model which the environment names is in its registry and signed by the key it names.

    The pods look again, with the key of their own cluster; what this refuses would never get ready there.

    Returns:
        What was found, in short, by reference; nothing where no model is named, or no key.

    Raises:
        PolicyError: the model is not signed by that key.
        RegistryError: the registry cannot be read, or has no such model.
        UsageError: the public key, or the registry's certificate authority, cannot be read.
    """
    named = dict.fromkeys(model for model in (env.model, *env.models.values()) if model)
    return tuple(proof for model in named for proof in _signed(model, env))


def _signed(model: Model, env: Environment) -> tuple[tuple[str, str], ...]:
    if not model.key:
        console.warn(f"nobody verifies the model's signature before the pods do: no `model.key` ({env.file})")
        return ()
    key = signer.public_key(model.key)
    _reach(env)
    _, found = inspect.look(model.reference, key, _SIGNED, env.network.access())
    if not found.holds:
        why = "; ".join(f"{one.name} {one.state}: {one.text}" for one in found.wrong)
        raise PolicyError(
            f"the model does not carry the signature {env.name} asks for: {why}",
            where=f"{model.reference}; key {paths.shown(Path(model.key))}, {env.file}",
            fix="name a model that `invoke train` registered, or the public half of the key it signs with; nothing was sent",
        )
    console.info(f"signed       {model.reference}: by key {found.key}")
    return ((str(model.reference), f"model signed by key {found.key}"),)


def _reach(env: Environment) -> None:
    """Start the registry of this machine, where it is the environment's."""
    if env.registry.partition("/")[0] == host.REGISTRY:
        host.start_registry()


def _text(found: Findings) -> str:
    return "; ".join(f"{one.name} {one.text}" for one in found.findings if one.state == "holds" and one.name == "smoke") or (
        f"{sum(one.state == 'holds' for one in found.findings)} kinds of proof hold"
    )
