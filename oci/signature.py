"""Cosign's plain signatures of one manifest in one repository, made and checked (sigstore/cosign, specs/SIGNATURE_SPEC.md).

For images and models alike. The caller decides what signs: cosign, or a key in a pod.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from common.errors import PolicyError
from oci import attachments, statement
from oci.attachments import Attached
from oci.client.client import Client, FixedTagError
from oci.envelope import IN_TOTO, SIMPLE, Envelope, PublicKey
from oci.reference import ImageRef
from oci.statement import Statement


def signed_statements(attached: Sequence[Attached], digest: str, key: PublicKey, kind: str) -> list[tuple[Attached, Statement]]:
    """The statements of one kind that the key signed about exactly this digest."""
    signed = []
    for item in attached:
        if item.envelope is None:
            continue
        try:
            parsed = statement.parse(item.envelope)
        except ValueError:
            continue
        if parsed.kind == kind and digest in parsed.digests and item.envelope.holds(key):
            signed.append((item, parsed))
    return signed


def is_signed(attached: Sequence[Attached], image: ImageRef, key: PublicKey) -> bool:
    """Whether the key's plain signature, for this digest in this repository, is among what is attached."""
    statements = signed_statements(attached, image.digest, key, statement.SIGNATURE)
    return any(item.tag != "att" and parsed.names == (_place(image),) for item, parsed in statements)


def attach(client: Client, image: ImageRef, attached: Sequence[Attached], sign: Callable[[bytes], bytes]) -> None:
    """Add a signature to those that are attached already; where their tag cannot be moved, as a referrer.

    Args:
        client: of the registry.
        image: by digest; it must be there.
        attached: everything that is attached to it.
        sign: gives the signature (ECDSA over P-256 and SHA-256, DER) of bytes.

    Raises:
        RegistryError: the registry refuses or fails.
    """
    payload = statement.make_signature(_place(image), image.digest)
    kept = [item for item in attached if item.tag == "sig"]
    try:
        attachments.write(client, image.repository, image.digest, "sig", kept, [Envelope(SIMPLE, payload, (sign(payload),))])
    except FixedTagError as fixed:
        bare = Envelope(IN_TOTO, statement.make(statement.SIGNATURE, _place(image), image.digest, {}), ())
        signed = replace(bare, signatures=(sign(bare.signed),))
        attachments.refer(client, image.repository, image.digest, [signed], fixed)


def verify(client: Client, image: ImageRef, key: PublicKey) -> None:
    """Require the key's plain signature for exactly this digest in exactly this repository.

    Raises:
        PolicyError: there is none; the message says what is there instead.
        RegistryError: the registry cannot be read.
    """
    attached = attachments.read(client, image.repository, image.digest, ("sig",))
    if is_signed(attached, image, key):
        return
    reason = "it is not signed"
    for item in attached:
        try:
            parsed = statement.parse(item.envelope) if item.envelope else None
        except ValueError:
            parsed = None
        if parsed is None or parsed.kind != statement.SIGNATURE or item.envelope is None:
            if item.tag:
                reason = "what is attached as its signature cannot be read as one"
        elif not item.envelope.holds(key):
            reason = "no signature of it is by the key that is trusted here"
        else:
            # The most useful answer: the right key signed, but for another image or place.
            reason = f"it is signed as {f'{parsed.names[0]}@{parsed.digests[0]}'[:300]!r}, which is another one"
            break
    raise PolicyError(f"{image} is refused: {reason}")


def _place(image: ImageRef) -> str:
    return f"{image.registry}/{image.repository}"
