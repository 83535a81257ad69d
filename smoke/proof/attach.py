"""`invoke push`, second half: proof beside the images that were pushed, read back and verified before success is claimed."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import console, host
from common.errors import RegistryError, SmokeError, UsageError
from common.run import which
from images import receipt as build_receipt
from images.receipt import BuiltImage
from images.registry.client import Client
from images.registry.policy import Policy as Patience
from images.registry.target import Registry
from smoke import receipt as smoke_receipt
from smoke.proof import attachments, dsse, provenance, result, signer, statement
from smoke.proof.dsse import SIMPLE, Envelope
from smoke.proof.policy import Policy
from smoke.proof.signer import Signer
from smoke.proof.verify import signed_statements, verify
from smoke.receipt import SmokeReceipt

# Says whose build it is, where it is not somebody's own machine: the workflow of a CI, as a URI.
BUILDER_VARIABLE = "PINWHEEL_BUILDER"
_PATIENCE = Patience()
_AGAIN = "run `invoke push` again: what is attached already is not attached twice"


@dataclass(frozen=True, slots=True)
class Proof:
    """What is to be attached to one image.

    Attributes:
        image: the image.
        predicates: what is said of it, by kind.
    """

    image: BuiltImage
    predicates: dict[str, dict[str, Any]]

    @property
    def policy(self) -> Policy:
        """What must hold once all of it is attached; which rungs a run must have is the verifier's business."""
        return Policy(smoke="cpu" if statement.SMOKE in self.predicates else "none", rungs=frozenset())


def attach(registry: str, *, key: str = "", keyless: bool = False) -> str:
    """Attach signature, SBOM, provenance and smoke result to every built image; it must have been pushed.

    What stands there already and says the same is left as it is. An older statement of the same key gives way to the new one,
    but for a smoke result from a GPU, which one from a CPU does not displace. What others attached stays.

    Args:
        registry: `host[:port][/path]`; empty: the embedded one.
        key: to sign with, as cosign names it; empty: PINWHEEL_KEY, else the checkout's own pair.
        keyless: sign without a key, as cosign does; it then attaches by itself, and a second time beside the first.

    Returns:
        the outcome in a few words.

    Raises:
        BuildError: nothing was built, or SBOM or locks are not those of the build; nothing is attached.
        UsageError: there is no such key or registry.
        MissingEnvironmentError: cosign is missing or cannot use the key.
        RegistryError: the registry refuses or fails, or does not hold what was attached; says what is missing.
    """
    target = Registry.parse(registry or host.REGISTRY)
    built = build_receipt.read()
    run = _last_run()
    # All of it before anything is attached: a build that cannot be accounted for gets no half of it.
    proofs = [_proof(image, built.source, run) for image in built.images]
    with Client(target, _PATIENCE, writes=True) as client:
        client.prepare()
        if keyless:
            for proof in proofs:
                _keyless(client, proof)
            return f"proof attached to {len(proofs)} digests, signed keyless"
        own = signer.signer(key)
        for number, proof in enumerate(proofs):
            try:
                deliver(client, proof, own)
            except RegistryError as problem:
                left = ", ".join(one.image.name for one in proofs[number:])
                raise RegistryError(f"{problem.what}; without proof: {left}", where=problem.where, fix=_AGAIN) from None
    proven = sum(statement.SMOKE in proof.predicates for proof in proofs)
    by = f"signed by key {dsse.fingerprint(own.public)}"
    return f"proof attached to {len(proofs)} digests, {proven} with a smoke result, {by}"


def check(*, key: str = "", keyless: bool = False) -> None:
    """Find out before a push whatever would keep proof from being attached after it, as `attach` would.

    Args:
        key: as for `attach`.
        keyless: as for `attach`.

    Raises:
        BuildError: nothing was built, or SBOM or locks are not those of the build.
        UsageError: there is no such key, or both are given.
        MissingEnvironmentError: cosign is missing or cannot use the key.
    """
    if keyless and key:
        raise UsageError("--key and --keyless exclude each other", fix="give one of them")
    built, run = build_receipt.read(), _last_run()
    for image in built.images:
        _proof(image, built.source, run)
    if keyless:
        which("cosign", fix=signer.MISSING)
    else:
        signer.signer(key)


def _last_run() -> SmokeReceipt | None:
    try:
        return smoke_receipt.read()
    except SmokeError:
        return None


def _proof(image: BuiltImage, source: str, run: SmokeReceipt | None) -> Proof:
    sbom = provenance.read_sbom(image)
    made = provenance.predicate(
        image,
        source=source,
        locks=provenance.locks(image),
        sbom=sbom,
        finished=provenance.built_at(),
        builder=os.environ.get(BUILDER_VARIABLE) or provenance.BUILDER,
    )
    predicates = {statement.SBOM: sbom, statement.PROVENANCE: made}
    if run is not None and result.proves(run, image.digest):
        predicates[statement.SMOKE] = result.predicate(run, result.payload_digest())
    return Proof(image, predicates)


def deliver(client: Client, proof: Proof, own: Signer) -> None:
    """Attach proof to one image, and read it back.

    Args:
        client: of the registry, which has the image.
        proof: what is said of it.
        own: signs it.

    Raises:
        RegistryError: the registry refuses or fails, lacks the image, or does not hold what was attached.
    """
    image = proof.image
    repository = client.target.prefix + image.name
    # Proof of what is not there would be pushed as readily.
    client.manifest(repository, image.digest)
    there = attachments.read(client, repository, image.digest)
    if not signed_statements([one for one in there if one.tag == "sig"], image.digest, own.public, statement.SIGNATURE):
        payload = statement.make_signature(f"{client.target.host}/{repository}", image.digest)
        kept = [one for one in there if one.tag == "sig"]
        attachments.write(client, repository, image.digest, "sig", kept, [_signed(own, SIMPLE, payload)])
    kept = [one for one in there if one.tag == "att"]
    new: list[Envelope] = []
    for kind, predicate in proof.predicates.items():
        payload = statement.make(kind, repository, image.digest, predicate)
        older = signed_statements([one for one in there if one.tag == "att"], image.digest, own.public, kind)
        if [one.envelope.payload for one, _ in older if one.envelope] == [payload]:
            continue
        if kind == statement.SMOKE and _outranks([said.predicate for _, said in older], predicate):
            console.warn(f"{image.name}: the result from a GPU that is attached stays; this run was on a CPU")
            continue
        replaced = [one for one, _ in older]
        kept = [one for one in kept if one not in replaced]
        new.append(_signed(own, dsse.IN_TOTO, payload))
    if new:
        attachments.write(client, repository, image.digest, "att", kept, new)
    # What another push wrote meanwhile, or the registry did not keep, shows here.
    found = verify(attachments.read(client, repository, image.digest), image.digest, own.public, proof.policy)
    if not found.holds:
        said = "; ".join(f"{one.name} {one.state}: {one.text}" for one in found.wrong)
        raise RegistryError(f"{image.name} was signed, and the registry does not hold all of it: {said}", where=repository)
    what = "signature, SBOM, provenance" + (", smoke result" if statement.SMOKE in proof.predicates else "; no smoke result")
    console.done(f"{image.name}: {what} {'attached' if new else 'there already'}, read back and verified")


def _signed(own: Signer, kind: str, payload: bytes) -> Envelope:
    bare = Envelope(kind, payload, ())
    return Envelope(kind, payload, (own.sign(bare.signed),))


def _outranks(older: list[dict[str, Any]], new: dict[str, Any]) -> bool:
    """Whether an attached smoke result says more than a new one: it was on a GPU and passed, and the new one was not on one."""
    before = [one.get(result.EXTENSION) for one in older if one.get("result") == "PASSED"]
    return not new[result.EXTENSION]["gpu"] and any(isinstance(one, dict) and one.get("gpu") is True for one in before)


def _keyless(client: Client, proof: Proof) -> None:
    image = proof.image
    reference = str(client.target.ref(image.name, image.version).pin(image.digest))
    signer.sign_keyless(reference)
    with tempfile.TemporaryDirectory(prefix="pinwheel-") as folder:
        for kind, predicate in proof.predicates.items():
            file = Path(folder) / "predicate.json"
            file.write_text(json.dumps(predicate), encoding="utf-8")
            signer.attest_keyless(reference, kind, file)
    signer.check_keyless(reference, list(proof.predicates))
    console.done(f"{image.name}: attached and read back by cosign")
