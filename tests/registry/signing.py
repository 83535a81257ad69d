"""Keys and attachments as a push makes them, without cosign: for tests of what judges them."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from images.receipt import BuiltImage, BuiltLayer
from oci import statement
from oci.attachments import Attached
from oci.envelope import IN_TOTO, SIMPLE, Envelope
from registry import provenance, result
from tests.smoke import receipts

OWN, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
DIGEST, REPOSITORY = receipts.TRAIN_DIGEST, "team/llama-factory-train"
# Two days after the run of `receipts`.
NOW = datetime.datetime.fromisoformat(receipts.STARTED) + datetime.timedelta(days=2)
COMMIT = "86d3fe8d81598a384ba8ece1290221fbcbf29bfe"
BUILT = BuiltImage(
    name="llama-factory-train",
    role="train",
    version="0.9.5-078fd9867138",
    digest=DIGEST,
    config_digest="sha256:" + "c" * 64,
    size=1,
    unpacked=1,
    inputs="sha256:" + "1" * 64,
    layers=(BuiltLayer("base", "sha256:" + "b" * 64, "sha256:" + "d" * 64, 1, 1, reused=False),),
    sbom="sha256:" + "5" * 64,
)
COMPONENTS: dict[str, Any] = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.7",
    "components": [
        {
            "purl": "pkg:pypi/jieba@0.42.1",
            "hashes": [{"alg": "SHA-256", "content": "a" * 64}],
            "pedigree": {
                "ancestors": [
                    {"purl": "pkg:pypi/jieba@0.42.1?file_name=j.tar.gz", "hashes": [{"alg": "SHA-256", "content": "e" * 64}]}
                ]
            },
        },
        {"purl": "pkg:deb/debian/bash@5.2", "hashes": [{"alg": "SHA-256", "content": "f" * 64}]},
    ],
}


def build(
    *, source: str = COMMIT, builder: str = "", finished: str = "2026-11-23T17:00:00+00:00", **image: Any
) -> dict[str, Any]:
    """Provenance as a push says it; `image` are fields of the built image that are others than those of BUILT."""
    locks = {"lockfiles/train.lock": "sha256:" + "9" * 64, "lockfiles/base.lock": "sha256:" + "8" * 64}
    return provenance.predicate(
        dataclasses.replace(BUILT, **image),
        source=source,
        locks=locks,
        sbom=COMPONENTS,
        finished=finished,
        builder=builder or provenance.builder(),
    )


def sealed(kind: str, payload: bytes, key: ec.EllipticCurvePrivateKey) -> Envelope:
    """An envelope that the key signed."""
    return Envelope(kind, payload, (key.sign(Envelope(kind, payload, ()).signed, ec.ECDSA(hashes.SHA256())),))


def signed(kind: str, payload: bytes, key: ec.EllipticCurvePrivateKey = OWN) -> Attached:
    """Something attached, signed."""
    return Attached(sealed(kind, payload, key), "sig" if kind == SIMPLE else "att")


def attest(kind: str, predicate: dict[str, Any], *, digest: str = DIGEST, key: ec.EllipticCurvePrivateKey = OWN) -> Attached:
    """An attestation."""
    return signed(IN_TOTO, statement.make(kind, REPOSITORY, digest, predicate), key)


def signature(digest: str = DIGEST, key: ec.EllipticCurvePrivateKey = OWN) -> Attached:
    """A signature of the image."""
    return signed(SIMPLE, statement.make_signature(REPOSITORY, digest), key)


def smoke(**options: Any) -> dict[str, Any]:
    """The predicate of a passed run."""
    return result.predicate(receipts.passed(**options), "0" * 64)


def everything(**options: Any) -> list[Attached]:
    """All that a push attaches."""
    return [
        signature(),
        attest(statement.SBOM, COMPONENTS),
        attest(statement.PROVENANCE, build()),
        attest(statement.SMOKE, smoke(**options)),
    ]
