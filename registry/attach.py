"""`invoke push`, second half: attaches proof to the pushed images, reads it back and verifies it before it reports success."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import console, host
from common.errors import RegistryError, SmokeError, UsageError
from common.run import which
from images import receipt as build_receipt
from images.receipt import BuildReceipt, BuiltImage
from oci import attachments, envelope, signature, statement
from oci.attachments import Attached
from oci.client.client import Client, FixedTagError
from oci.client.patience import Patience, settled
from oci.client.target import Registry
from oci.envelope import Envelope
from oci.reference import ImageRef
from oci.signature import by_key, signed_statements
from oci.statement import Statement
from registry import audited, inventories, provenance, recompute, result, signer
from registry.signer import Signer
from registry.verify import NAMES
from smoke import receipt as smoke_receipt
from smoke.receipt import SmokeReceipt

# Names the builder where it is not somebody's own machine: the workflow of a CI, as a URI.
BUILDER_VARIABLE = "PINWHEEL_BUILDER"
_PATIENCE = Patience()
_NAMES = {**NAMES, audited.AUDIT: "audit", audited.VEX: "VEX"}
_KINDS = attachments.KINDS | {audited.AUDIT, audited.VEX}
_AGAIN = "run `invoke push` again: what is attached already is not attached twice"


@dataclass(frozen=True, slots=True)
class Proof:
    """The proof to attach to one image.

    Attributes:
        image: the image.
        predicates: the predicate of each kind of statement.
        inventory: of its layers, which its provenance names; empty: there is none.
        signs: whether the image itself is signed, too.
    """

    image: BuiltImage
    predicates: dict[str, dict[str, Any]]
    inventory: bytes = b""
    signs: bool = True

    @property
    def passed(self) -> bool:
        """Whether it includes a passed smoke run."""
        return statement.SMOKE in self.predicates and result.passed(self.predicates[statement.SMOKE])

    @property
    def failed(self) -> bool:
        """Whether it includes a failed smoke run."""
        return statement.SMOKE in self.predicates and not self.passed


def attach(registry: str, *, key: str = "", keyless: bool = False) -> str:
    """Attach signature, SBOM, provenance, smoke result and audit to every built image; it must have been pushed.

    Proof that is there already and equal is left as it is. An older statement of the same key is replaced by the new one;
    of smoke results, `result.supersedes` says which. A failed run is attached as well: a digest that failed is proven no more.
    What others attached stays.

    Args:
        registry: `host[:port][/path]`; empty: the embedded one.
        key: to sign with, as cosign names it; empty: PINWHEEL_KEY, else the checkout's own pair.
        keyless: sign without a key, as cosign does; it then attaches by itself, and a second time beside the first.

    Returns:
        the outcome in a few words.

    Raises:
        BuildError: nothing was built, or `dist/` says something else than specs, locks and git; nothing is attached.
        SmokeError: the smoke receipt is none that a run writes, or is about another configuration; nothing is attached.
        UsageError: there is no such key or registry.
        MissingEnvironmentError: cosign is missing or cannot use the key.
        RegistryError: the registry refuses or fails, or does not hold what was attached; says what is missing.
    """
    target = Registry.parse(registry or host.default_registry())
    built = build_receipt.read()
    run = _last_run()
    # Make all proofs before attaching any, so that a failure here attaches nothing.
    proofs = [_with_audit(_proof(image, built, run)) for image in built.images]
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
                left = ", ".join(unfinished.image.name for unfinished in proofs[number:])
                what, fix = f"{problem.what}; without proof: {left}", problem.fix or _AGAIN
                raise RegistryError(what, where=problem.where, fix=fix) from None
    passed, failed = sum(proof.passed for proof in proofs), sum(proof.failed for proof in proofs)
    outcome = f"{passed} with a passed smoke run" + (f", {failed} with a FAILED one" if failed else "")
    return f"proof attached to {len(proofs)} digests, {outcome}, signed by key {envelope.fingerprint(own.public)}"


def check(registry: str, *, key: str = "", keyless: bool = False) -> None:
    """Find out before a push whether `attach` could fail after it.

    Args:
        registry: as for `attach`.
        key: as for `attach`.
        keyless: as for `attach`.

    Raises:
        BuildError: nothing was built, or `dist/` says something else than specs, locks and git.
        SmokeError: the smoke receipt is none that a run writes, or is about another configuration.
        UsageError: there is no such key or registry, or key and keyless are both given.
        MissingEnvironmentError: cosign is missing or cannot use the key.
    """
    if keyless and key:
        raise UsageError("--key and --keyless exclude each other", fix="give one of them")
    Registry.parse(registry or host.default_registry())
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
    true = recompute.inputs(image, built)
    build = provenance.predicate(
        image,
        source=built.source,
        locks=true.locks,
        sbom=true.sbom,
        finished=built.finished,
        builder=_builder(),
        inventory=true.inventory,
    )
    predicates = {statement.SBOM: true.sbom, statement.PROVENANCE: build}
    if run is not None and result.speaks(run, image.digest):
        result.check(run, image)
        predicates[statement.SMOKE] = result.predicate(run, result.payload_digest())
    return Proof(image, predicates, true.inventory)


def _with_audit(proof: Proof) -> Proof:
    found = audited.predicates(proof.image.name, proof.image.digest, proof.predicates[statement.SBOM])
    return replace(proof, predicates={**proof.predicates, **found})


def _builder() -> str:
    builder = os.environ.get(BUILDER_VARIABLE, "")
    if builder and "://" not in builder:
        raise UsageError(f"{builder!r} is no URI", where=BUILDER_VARIABLE, fix="name who builds: https://…")
    return builder or provenance.builder()


def deliver(client: Client, proof: Proof, own: Signer) -> None:
    """Attach proof to one image, and read it back.

    Args:
        client: of the registry, which has the image.
        proof: the statements about it.
        own: the key that signs them.

    Raises:
        RegistryError: the registry refuses or fails, lacks the image, or does not hold what was attached.
    """
    image = proof.image
    repository = client.target.prefix + image.name
    # Make sure that the image is there: the registry would also take proof for a missing image.
    client.manifest(repository, image.digest)
    if proof.inventory:
        inventories.put(client, repository, image.digest, proof.inventory)
    attached = attachments.read(client, repository, image.digest, kinds=_KINDS)
    reference = ImageRef(client.target.host, repository, "", image.digest)
    for text in attachments.left_out(attached):
        console.warn(f"{image.name}: {text}")
    if proof.signs and not signature.is_signed(attached, reference, own.public):
        signature.attach(client, reference, attached, own.sign)
    older: dict[str, list[Attached]] = {}
    new: dict[str, list[bytes]] = {}
    superseded: list[Attached] = []
    for kind, predicate in proof.predicates.items():
        payload = statement.make(kind, repository, image.digest, predicate)
        found = signed_statements(attached, image.digest, by_key(own.public), kind)
        stays, new[kind] = _choose(image.name, found, predicate, payload)
        older[kind] = [item for item, _ in found]
        superseded += [item for item in older[kind] if item not in stays]
    envelopes = [_signed(own, envelope.IN_TOTO, payload) for payloads in new.values() for payload in payloads]
    gone = _store(client, repository, image, attached, superseded, envelopes)
    expected = {
        kind: sorted(_payloads([item for item in older[kind] if item not in gone]) + payloads) for kind, payloads in new.items()
    }
    _read_back(client, proof, own, expected)
    kinds = "signature, SBOM, provenance" + (", smoke result" if statement.SMOKE in expected else "; no smoke result")
    kinds += ", audit" if audited.AUDIT in expected else ""
    kinds = kinds if proof.signs else "smoke result"
    console.done(f"{image.name}: {kinds} {'attached' if envelopes else 'there already'}, read back and verified")
    if proof.failed:
        console.warn(f"{image.name}: its last smoke run FAILED: verify and deploy refuse it until a later one passes")


def _store(
    client: Client,
    repository: str,
    image: BuiltImage,
    attached: Sequence[Attached],
    superseded: Sequence[Attached],
    new: Sequence[Envelope],
) -> list[Attached]:
    """Put new statements in the place of superseded ones, or beside them where no tag can be moved; returns what is gone."""
    gone = [item for item in superseded if item.tag == "att"]
    if new or gone:
        kept = [item for item in attached if item.tag == "att" and item not in gone]
        try:
            attachments.write(client, repository, image.digest, "att", kept, new)
        except FixedTagError as problem:
            gone = []
            if new:
                attachments.refer(client, repository, image.digest, new, problem)
                what = f"{problem.what}; the new statements are attached as referrers, which cosign 2 does not read"
                console.warn(f"{image.name}: {what}")
    if len(gone) < len(superseded):
        console.warn(
            f"{image.name}: older statements of this key stay where they cannot be replaced: cosign counts all of them"
        )
    return gone


def _choose(
    name: str, older: list[tuple[Attached, Statement]], predicate: dict[str, Any], payload: bytes
) -> tuple[list[Attached], list[bytes]]:
    """Which of the key's older statements of one kind stay, and which payloads are added."""
    standing = [
        pair for pair in older if pair[1].kind == statement.SMOKE and not result.supersedes(predicate, pair[1].predicate)
    ]
    beside = [parsed.predicate for _, parsed in standing]
    new = [payload] if not beside or result.adds(predicate, beside) else []
    if not new:
        same = any(result.on_gpu(old) == result.on_gpu(predicate) for old in beside)
        origin = "a later run" if same else "a GPU"
        console.warn(f"{name}: the result from {origin} that is attached stays{'' if same else '; this run was on a CPU'}")
    stays = [item for item, _ in standing]
    there = [item for item, _ in older if item not in stays and item.envelope and item.envelope.payload in new]
    return (stays + there[:1], []) if there else (stays, new)


def _read_back(client: Client, proof: Proof, own: Signer, expected: dict[str, list[bytes]]) -> None:
    """Check that the registry holds the proof: another push may have replaced it, or the registry may not have kept it.

    Raises:
        RegistryError: it does not hold all of it.
    """
    name = proof.image.name
    reference = ImageRef(client.target.host, client.target.prefix + name, "", proof.image.digest)

    def problems() -> str:
        attached = attachments.read(client, reference.repository, reference.digest, kinds=_KINDS)
        signed = not proof.signs or signature.is_signed(attached, reference, own.public)
        found = [] if signed else ["signature missing"]
        for kind, payloads in expected.items():
            items = [item for item, _ in signed_statements(attached, reference.digest, by_key(own.public), kind)]
            if sorted(_payloads(items)) != payloads:
                found.append(f"{_NAMES[kind]} {'is another' if items else 'missing'}")
        return "; ".join(found)

    if summary := settled(problems, "", client.patience):
        what = f"{name} was signed, and the registry does not hold all of it: {summary}"
        raise RegistryError(what, where=reference.repository)


def _payloads(attached: Sequence[Attached]) -> list[bytes]:
    return [item.envelope.payload for item in attached if item.envelope]


def _signed(own: Signer, kind: str, payload: bytes) -> Envelope:
    bare = Envelope(kind, payload, ())
    return Envelope(kind, payload, (own.sign(bare.signed),))


def _keyless(client: Client, proof: Proof) -> None:
    image = proof.image
    predicates = {kind: predicate for kind, predicate in proof.predicates.items() if kind != statement.SMOKE or proof.passed}
    if proof.failed:
        # Cosign only appends: nothing could ever remove a failed result again.
        console.warn(f"{image.name}: its last smoke run FAILED; nothing is attached of it without a key")
    reference = str(client.target.ref(image.name, image.version).pin(image.digest))
    if proof.inventory:
        inventories.put(client, client.target.prefix + image.name, image.digest, proof.inventory)
    signer.sign_keyless(reference)
    with tempfile.TemporaryDirectory(prefix="pinwheel-") as folder:
        for kind, predicate in predicates.items():
            file = Path(folder) / "predicate.json"
            file.write_text(json.dumps(predicate), encoding="utf-8")
            signer.attest_keyless(reference, kind, file)
    signer.check_keyless(reference, list(predicates))
    console.done(f"{image.name}: attached and read back by cosign")
