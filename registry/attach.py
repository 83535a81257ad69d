"""`invoke push`, second half: proof beside the images that were pushed, read back and verified before success is claimed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import console, host
from common.errors import RegistryError, SmokeError, UsageError
from common.run import which
from images import receipt as build_receipt
from images.receipt import BuildReceipt, BuiltImage
from oci import attachments, envelope, signature, statement
from oci.attachments import Attached
from oci.client.client import Client
from oci.client.patience import Patience
from oci.client.target import Registry
from oci.envelope import Envelope
from oci.reference import ImageRef
from oci.signature import signed_statements
from oci.statement import Statement
from registry import provenance, result, signer
from registry.signer import Signer
from registry.verify import NAMES
from smoke import receipt as smoke_receipt
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
    def passed(self) -> bool:
        """Whether a passed smoke run is among it."""
        return statement.SMOKE in self.predicates and result.passed(self.predicates[statement.SMOKE])

    @property
    def failed(self) -> bool:
        """Whether a failed smoke run is among it."""
        return statement.SMOKE in self.predicates and not self.passed


def attach(registry: str, *, key: str = "", keyless: bool = False) -> str:
    """Attach signature, SBOM, provenance and smoke result to every built image; it must have been pushed.

    What stands there already and says the same is left as it is. An older statement of the same key gives way to the new one;
    of smoke results, `result.supersedes` says which. A failed run is attached as well: a digest that failed is proven no more.
    What others attached stays.

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
    proofs = [_proof(image, built, run) for image in built.images]
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
    passed, failed = sum(proof.passed for proof in proofs), sum(proof.failed for proof in proofs)
    ran = f"{passed} with a passed smoke run" + (f", {failed} with a FAILED one" if failed else "")
    return f"proof attached to {len(proofs)} digests, {ran}, signed by key {envelope.fingerprint(own.public)}"


def check(registry: str, *, key: str = "", keyless: bool = False) -> None:
    """Find out before a push whatever would keep proof from being attached after it, as `attach` would.

    Args:
        registry: as for `attach`.
        key: as for `attach`.
        keyless: as for `attach`.

    Raises:
        BuildError: nothing was built, or SBOM or locks are not those of the build.
        UsageError: there is no such key or registry, or key and keyless are both given.
        MissingEnvironmentError: cosign is missing or cannot use the key.
    """
    if keyless and key:
        raise UsageError("--key and --keyless exclude each other", fix="give one of them")
    Registry.parse(registry or host.REGISTRY)
    built, run = build_receipt.read(), _last_run()
    for image in built.images:
        _proof(image, built, run)
    if keyless:
        which("cosign", fix=signer.MISSING)
    else:
        signer.signer(key)


def _last_run() -> SmokeReceipt | None:
    try:
        return smoke_receipt.read()
    except SmokeError:
        return None


def _proof(image: BuiltImage, built: BuildReceipt, run: SmokeReceipt | None) -> Proof:
    sbom = provenance.read_sbom(image)
    made = provenance.predicate(
        image,
        source=built.source,
        locks=provenance.locks(image, built.toolkit),
        sbom=sbom,
        finished=built.finished,
        builder=_builder(),
    )
    predicates = {statement.SBOM: sbom, statement.PROVENANCE: made}
    if run is not None and result.speaks(run, image.digest):
        predicates[statement.SMOKE] = result.predicate(run, result.payload_digest())
    return Proof(image, predicates)


def _builder() -> str:
    named = os.environ.get(BUILDER_VARIABLE, "")
    if named and "://" not in named:
        raise UsageError(f"{named!r} is no URI", where=BUILDER_VARIABLE, fix="name who builds: https://…")
    return named or provenance.builder()


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
    reference = ImageRef(client.target.host, repository, "", image.digest)
    if not signature.is_signed(there, reference, own.public):
        signature.attach(client, reference, there, own.sign)
    kept = [one for one in there if one.tag == "att"]
    new: list[Envelope] = []
    expected: dict[str, list[bytes]] = {}
    for kind, predicate in proof.predicates.items():
        payload = statement.make(kind, repository, image.digest, predicate)
        older = signed_statements([one for one in there if one.tag == "att"], image.digest, own.public, kind)
        stays, added = _choose(image.name, older, predicate, payload)
        expected[kind] = sorted(_payloads(stays) + added)
        kept = [one for one in kept if one in stays or one not in [old for old, _ in older]]
        new += [_signed(own, envelope.IN_TOTO, one) for one in added]
    if new or len(kept) != sum(one.tag == "att" for one in there):
        attachments.write(client, repository, image.digest, "att", kept, new)
    _read_back(client, proof, own, expected)
    what = "signature, SBOM, provenance" + (", smoke result" if statement.SMOKE in expected else "; no smoke result")
    console.done(f"{image.name}: {what} {'attached' if new else 'there already'}, read back and verified")
    if proof.failed:
        console.warn(f"{image.name}: its last smoke run FAILED: verify and deploy refuse it until a later one passes")


def _choose(
    name: str, older: list[tuple[Attached, Statement]], predicate: dict[str, Any], payload: bytes
) -> tuple[list[Attached], list[bytes]]:
    """What stays of the key's older statements of one kind, and what is added."""
    standing = [one for one in older if one[1].kind == statement.SMOKE and not result.supersedes(predicate, one[1].predicate)]
    beside = [said.predicate for _, said in standing]
    wanted = [payload] if not beside or result.adds(predicate, beside) else []
    if not wanted:
        same = any(result.on_gpu(one) == result.on_gpu(predicate) for one in beside)
        why = "a later run" if same else "a GPU"
        console.warn(f"{name}: the result from {why} that is attached stays{'' if same else '; this run was on a CPU'}")
    stays = [one for one, _ in standing]
    replaced = [one for one, _ in older if one not in stays]
    if _payloads(replaced) == wanted:
        return [one for one, _ in older], []
    return stays, wanted


def _read_back(client: Client, proof: Proof, own: Signer, expected: dict[str, list[bytes]]) -> None:
    """See that the registry holds it: what another push wrote meanwhile, or the registry did not keep, shows here.

    Raises:
        RegistryError: it does not.
    """
    image = proof.image
    repository = client.target.prefix + image.name
    there = attachments.read(client, repository, image.digest)
    lacking = []
    for kind in (statement.SIGNATURE, *expected):
        tag = "sig" if kind == statement.SIGNATURE else "att"
        found = [one for one, _ in signed_statements(there, image.digest, own.public, kind) if one.tag == tag]
        if (not found) if tag == "sig" else (sorted(_payloads(found)) != expected[kind]):
            lacking.append(f"{NAMES[kind]} {'is another' if found else 'missing'}")
    if lacking:
        said = "; ".join(lacking)
        raise RegistryError(f"{image.name} was signed, and the registry does not hold all of it: {said}", where=repository)


def _payloads(attached: Sequence[Attached]) -> list[bytes]:
    return [one.envelope.payload for one in attached if one.envelope]


def _signed(own: Signer, kind: str, payload: bytes) -> Envelope:
    bare = Envelope(kind, payload, ())
    return Envelope(kind, payload, (own.sign(bare.signed),))


def _keyless(client: Client, proof: Proof) -> None:
    image = proof.image
    predicates = {kind: one for kind, one in proof.predicates.items() if kind != statement.SMOKE or proof.passed}
    if proof.failed:
        # Cosign only appends: nothing would ever take a failed result away again.
        console.warn(f"{image.name}: its last smoke run FAILED; nothing is attached of it without a key")
    reference = str(client.target.ref(image.name, image.version).pin(image.digest))
    signer.sign_keyless(reference)
    with tempfile.TemporaryDirectory(prefix="pinwheel-") as folder:
        for kind, predicate in predicates.items():
            file = Path(folder) / "predicate.json"
            file.write_text(json.dumps(predicate), encoding="utf-8")
            signer.attest_keyless(reference, kind, file)
    signer.check_keyless(reference, list(predicates))
    console.done(f"{image.name}: attached and read back by cosign")
