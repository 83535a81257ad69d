"""`invoke prove`: attaches the result of a smoke run to the images that ran, wherever the run was."""

from __future__ import annotations

from pathlib import Path

from common import host, paths
from common.errors import SmokeError, UsageError
from oci import envelope, statement
from oci.client.client import Client
from oci.client.patience import Patience
from oci.client.target import Registry
from oci.reference import ImageRef
from registry import result, signer
from registry.attach import Proof, deliver
from smoke import pulled
from smoke import receipt as smoke_receipt
from smoke.receipt import SmokeReceipt

_PATIENCE = Patience()


def prove(registry: str, *, key: str = "", file: str = "") -> str:
    """Attach the result of a smoke run, passed or failed, to each image that ran; nothing else is signed.

    Args:
        registry: `host[:port][/path]` that has the images; empty: the embedded one.
        key: to sign with, as for `invoke push`.
        file: the receipt of the run; empty: that of the last one here.

    Returns:
        the outcome in a few words.

    Raises:
        SmokeError: there is no receipt, or it is none that a run writes, or no result of a digest; nothing is attached.
        UsageError: there is no such registry, key or file.
        MissingEnvironmentError: cosign is missing or cannot use the key.
        RegistryError: the registry refuses or fails, or has no such image; then nothing is attached to it.
    """
    target, run = Registry.parse(registry or host.default_registry()), _run(file)
    for image in run.images:
        if not result.speaks(run, image.digest):
            raise _nothing(file)
    if not run.images:
        raise _nothing(file)
    own, payload = signer.signer(key), result.payload_digest()
    with Client(target, _PATIENCE, writes=True) as client:
        client.prepare()
        proofs = []
        for image in run.images:
            ref = ImageRef(target.host, target.prefix + image.name, "", image.digest)
            there = pulled.read(client, ref, image.role)
            result.check(run, there)
            proofs.append(Proof(there, {statement.SMOKE: result.predicate(run, payload)}, signs=False))
        for proof in proofs:
            deliver(client, proof, own)
    outcome = "passed" if run.passed else "FAILED"
    return f"{outcome} smoke run attached to {len(proofs)} digests, signed by key {envelope.fingerprint(own.public)}"


def _run(file: str) -> SmokeReceipt:
    if not file:
        return smoke_receipt.read()
    try:
        return smoke_receipt.load(Path(file).read_text(encoding="utf-8"))
    except OSError as problem:
        raise UsageError(f"no receipt can be read: {problem.strerror}", where=file, fix="name a receipt.json") from None
    except ValueError as problem:
        raise SmokeError(f"not a smoke receipt: {problem}", where=file, fix="name the receipt.json of a run") from None


def _nothing(file: str) -> SmokeError:
    what = "the run says nothing of a digest: it ran no images, or was interrupted before anything failed"
    return SmokeError(what, where=file or paths.shown(smoke_receipt.path()), fix="run `invoke smoke` again")
