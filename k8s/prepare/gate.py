"""The gate: an image may be deployed when what is attached to its digest is the proof that the environment asks for.

Every image is asked: ours, of this build or an earlier one, by the environment's policy and key; other people's must be named
in the environment's file (k8s/envs/other_images.py). And a model when the key signed it that the environment names.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from common import console, host, paths
from common.errors import MissingEnvironmentError, PolicyError, UsageError
from k8s.envs.environment import Environment
from k8s.envs.other_images import KEY, OtherImage, canonical, under
from k8s.envs.proof import AuditLimit, Gate, Model
from k8s.pipeline import artifact
from lockfiles.audit import run
from lockfiles.audit.model import at_least
from oci import attachments, signature
from oci.client.client import Client
from oci.client.target import Registry
from oci.envelope import PublicKey
from oci.reference import ImageRef
from registry import contents, inspect, signer
from registry.policy import Policy
from registry.trust import Trust
from registry.verify import Findings

# Of a model nobody makes an SBOM, and no smoke ladder runs it: what it is made of says the card inside it. Of other people's
# images nobody knows more than who signed them.
_SIGNED = Policy(sbom=False, provenance=False, smoke="none")


# How the verdict on what was deployed all the same begins in the record.
LACKING = "LACKING"


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What the gate says of an image.

    Attributes:
        image: by digest.
        holds: whether it may be deployed.
        what: `proven`, `allowed`, or empty.
        text: what was found, or what is missing.
        fix: what to do where it may not.
    """

    image: str
    holds: bool
    what: str
    text: str
    fix: str = ""

    def recorded(self) -> tuple[str, str]:
        """The verdict as the release record has it."""
        return self.image, self.text if self.holds else f"{LACKING} {self.text}"


def check(
    images: Iterable[ImageRef], env: Environment, *, whole: bool = False, excused: bool = False
) -> tuple[tuple[str, str], ...]:
    """Judge every image: ours by the proof in its registry and the environment's policy, others by the environment's list.

    Args:
        images: by digest.
        env: the environment; one that asks for no proof lets everything pass, and says so.
        whole: these are all images of a set: entries of the list that nothing uses are told, and none may be out of date.
        excused: what lacks proof is told and recorded, and not refused.

    Returns:
        What was found, in short, by image; nothing where no proof is asked for.

    Raises:
        PolicyError: an image does not carry the proof that is asked for, or is not allowed; all of them are named.
        RegistryError: a registry cannot be read, or has no such image.
        UsageError: a public key, or the registry's certificate authority, cannot be read.
    """
    gate = env.proof
    if gate is None:
        console.warn(f"no proof is asked for ({env.file}): nobody knows whether these images work")
        return ()
    wanted = sorted(set(images), key=str)
    verdicts = _verdicts(wanted, env, gate)
    if whole:
        verdicts += _unused(wanted, env)
    for one in verdicts:
        if one.holds:
            console.info(f"{one.what:<12} {one.image}: {one.text}")
        else:
            console.warn(f"{one.image}: {one.text}")
    lacking = [one for one in verdicts if not one.holds]
    if lacking and gate.refuse and not excused:
        raise PolicyError(
            f"{len(lacking)} image{'s' if len(lacking) > 1 else ''} without the proof {env.name} asks for: {lacking[0].text}",
            where=f"{', '.join(one.image for one in lacking)}; signers: {gate.signers.named()}, policy in {env.file}",
            fix=f"{'; '.join(dict.fromkeys(one.fix for one in lacking))}; nothing was sent",
        )
    return tuple(sorted(one.recorded() for one in verdicts))


def unproven(images: Iterable[ImageRef], env: Environment) -> list[str]:
    """What `check` would refuse without asking any registry: one line for each image that is neither ours nor allowed."""
    if env.proof is None:
        return []
    allowed = {one.reference: one for one in env.other_images}
    found = []
    for image in sorted(set(images), key=str):
        entry = allowed.get(canonical(image))
        if entry is None and not under(image, env.registry):
            found.append(f"{image}: {_stranger(env).text}")
        elif entry is not None and entry.expired():
            found.append(f"{image}: {_expired(entry).text}")
    return found


def _verdicts(images: Iterable[ImageRef], env: Environment, gate: Gate) -> list[_Verdict]:
    allowed = {one.reference: one for one in env.other_images}
    own: Trust | None = None
    verdicts = []
    for image in images:
        if entry := allowed.get(canonical(image)):
            verdicts.append(_allowed(str(image), entry, env))
        elif not under(image, env.registry):
            verdicts.append(_stranger(env, str(image)))
        else:
            if own is None:
                fix = f"`invoke push` makes this checkout's own pair, or name who pushes at `proof.key` in {env.file}"
                own = gate.signers.trust(env.file, fix)
                reach(env)
            _, found = inspect.look(image, own, gate.policy, env.network.access())
            fix = f"run `invoke smoke{' --gpu' if gate.policy.smoke == 'gpu' else ''} push` for what is ours"
            verdict = _Verdict(str(image), found.holds, "proven", _text(found) if found.holds else _why(found), fix)
            verdicts.append(_audited(verdict, image, own, env, gate.audit) if gate.audit and found.holds else verdict)
    return verdicts


def _audited(verdict: _Verdict, image: ImageRef, key: Trust, env: Environment, limit: AuditLimit) -> _Verdict:
    """The verdict on an image that carries its proof, by what is known today of the packages that its SBOM names."""
    _, packages = contents.of_image(image, key, env.network.access())
    try:
        audit = run.judge(str(image), {package: {str(image)} for package in packages})
    except MissingEnvironmentError as problem:
        return replace(verdict, holds=False, text=f"audit missing: {problem.what}", fix=problem.fix)
    old = max(source.age(datetime.datetime.now(datetime.UTC)) for source in audit.sources)
    if old > limit.max_age_days:
        text = f"audit: the advisory data is {old} days old, and {limit.max_age_days} are allowed"
        return replace(verdict, holds=False, text=text, fix="run `invoke fetch --advisories`")
    worse = [one for one in audit.counting if one.severity != limit.max_severity and at_least(one.severity, limit.max_severity)]
    if worse:
        first, more = worse[0], f" and {len(worse) - 1} more" if len(worse) > 1 else ""
        named = f"{first.package} {first.ids[0]} ({first.severity}){more}"
        fix = "run `invoke lock --upgrade vulnerable build smoke push`, or say in lockfiles/vex.toml why it does not apply here"
        text = f"audit: known defects worse than {limit.max_severity}: {named}"
        return replace(verdict, holds=False, text=text, fix=fix)
    return replace(verdict, text=f"{verdict.text}; audit: no known defect worse than {limit.max_severity}")


def _stranger(env: Environment, image: str = "") -> _Verdict:
    fix = f"name what is other people's at `{KEY}` in {env.file}, with a reason and a last day"
    return _Verdict(image, False, "", f"no image of ours ({env.registry}/…), and not allowed in {env.file}", fix)


def _expired(entry: OtherImage, image: str = "") -> _Verdict:
    fix = "look whether there is a newer image, and write another last day"
    return _Verdict(image, False, "", f"its entry is out of date since {entry.until} ({entry.where})", fix)


def _allowed(image: str, entry: OtherImage, env: Environment) -> _Verdict:
    """The verdict on an image that the environment names."""
    if entry.expired():
        return _expired(entry, image)
    if not entry.signer:
        return _Verdict(image, True, "allowed", entry.text())
    key = _key(entry.signer, f"mend `signer` at {entry.where}")
    _, found = inspect.look(entry.reference, key, _SIGNED, env.network.access())
    if found.holds:
        return _Verdict(image, True, "allowed", f"{entry.text()}; signed by {found.key}")
    fix = f"do not use it, or mend `signer` at {entry.where}"
    return _Verdict(image, False, "", f"its signer did not sign it: {_why(found)} (key {paths.shown(Path(entry.signer))})", fix)


def _unused(images: Collection[ImageRef], env: Environment) -> list[_Verdict]:
    """What is to be said of the entries that no image of the set uses."""
    used = {canonical(image) for image in images}
    verdicts = []
    for entry in env.other_images:
        if entry.reference in used:
            continue
        if entry.expired():
            verdicts.append(_expired(entry, str(entry.reference)))
        elif entry.injected:
            verdicts.append(_allowed(str(entry.reference), entry, env))
        else:
            console.warn(f"no image of the set is {entry.reference}: remove its entry ({entry.where})")
    return verdicts


def _key(file: str, fix: str) -> PublicKey:
    try:
        return signer.public_key(file)
    except UsageError as problem:
        raise UsageError(problem.what, where=problem.where, fix=fix) from None


def _why(found: Findings) -> str:
    return "; ".join(f"{one.name} {one.state}: {one.text}" for one in found.wrong)


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
    if model.signers is None:
        console.warn(f"nobody verifies the model's signature before the pods do: no `model.key` ({env.file})")
        return ()
    trust = model.signers.trust(env.file)
    reach(env)
    _, found = inspect.look(model.reference, trust, _SIGNED, env.network.access())
    if not found.holds:
        raise PolicyError(
            f"the model does not carry the signature {env.name} asks for: {_why(found)}",
            where=f"{model.reference}; signers: {model.signers.named()}, {env.file}",
            fix="name a model that `invoke train` registered, or the public half of the key it signs with; nothing was sent",
        )
    _as_the_pods(model.reference, trust, env)
    console.info(f"signed       {model.reference}: by {found.key}")
    return ((str(model.reference), f"model signed by {found.key}"),)


def _as_the_pods(model: ImageRef, trust: Trust, env: Environment) -> None:
    """Ask what the pods ask beside: that it is a whole model, and that it was signed for exactly this place."""
    with Client(Registry(model.registry, "", env.network.access())) as client:
        data = client.manifest(model.repository, model.digest)
        attached = attachments.read(client, model.repository, model.digest, ("sig",))
    try:
        artifact.servable(artifact.parse(data, str(model)), str(model))
    except PolicyError as problem:
        fix = f"name a model that `invoke train` or `invoke model` registered in {env.file}; nothing was sent"
        raise PolicyError(problem.what, where=str(model), fix=fix) from None
    if trust.keys and not any(signature.is_signed(attached, model, key) for key in trust.keys):
        fix = "a copy is signed again where it is now: register the model there; nothing was sent"
        raise PolicyError("the model is signed for another place, and the pods would refuse it", where=str(model), fix=fix)


def reach(env: Environment) -> None:
    """Start the registry of this machine, where it is the environment's."""
    if env.registry.partition("/")[0] == host.REGISTRY:
        host.start_registry()


def _text(found: Findings) -> str:
    return "; ".join(f"{one.name} {one.text}" for one in found.findings if one.state == "holds" and one.name == "smoke") or (
        f"{sum(one.state == 'holds' for one in found.findings)} kinds of proof hold"
    )
