"""in-toto Statements (https://in-toto.io/Statement/v1): a predicate about a digest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oci.descriptor import canonical
from oci.envelope import SIMPLE, Envelope, read_json
from oci.reference import check_digest

TYPE = "https://in-toto.io/Statement/v1"
# Cosign up to 3.1 writes this one; the fields are the same.
_TYPES = frozenset({TYPE, "https://in-toto.io/Statement/v0.1"})
SBOM = "https://cyclonedx.org/bom"
PROVENANCE = "https://slsa.dev/provenance/v1"
SMOKE = "https://in-toto.io/attestation/test-result/v0.1"
# The type of predicate with which cosign 3 signs in a bundle; before, it wrote a plain signature.
SIGNATURE = "https://sigstore.dev/cosign/sign/v1"
_SIMPLE_TYPE = "cosign container image signature"


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement: a predicate about digests.

    Attributes:
        kind: the predicate's type, a URI; `SIGNATURE` for a signature, which says nothing more.
        digests: of its subjects.
        predicate: its content.
        names: what each subject is called, the repository as a rule; empty where it has no name: there the digest alone counts.
    """

    kind: str
    digests: tuple[str, ...]
    predicate: dict[str, Any]
    names: tuple[str, ...]


def make(kind: str, repository: str, digest: str, predicate: dict[str, Any]) -> bytes:
    """A statement's bytes; equal arguments give equal bytes.

    Args:
        kind: the predicate's type.
        repository: the subject's name, for people.
        digest: of the image manifest that the statement is about.
        predicate: its content.
    """
    subject = {"name": repository, "digest": {"sha256": check_digest(digest).removeprefix("sha256:")}}
    return canonical({"_type": TYPE, "subject": [subject], "predicateType": kind, "predicate": predicate})


def make_signature(repository: str, digest: str) -> bytes:
    """The payload of cosign's plain signature of an image ("simple signing")."""
    image = {"docker-manifest-digest": check_digest(digest)}
    critical = {"identity": {"docker-reference": repository}, "image": image, "type": _SIMPLE_TYPE}
    return canonical({"critical": critical, "optional": None})


def parse(envelope: Envelope) -> Statement:
    """Read what an envelope says, whoever signed it.

    Raises:
        ValueError: it is neither a statement nor an image signature.
    """
    try:
        body = read_json(envelope.payload)
        if envelope.payload_type == SIMPLE:
            if body["critical"]["type"] != _SIMPLE_TYPE:
                raise ValueError(f"a signature of type {body['critical']['type']!r}")
            critical = body["critical"]
            digest = check_digest(critical["image"]["docker-manifest-digest"])
            return Statement(SIGNATURE, (digest,), {}, (str(critical["identity"]["docker-reference"]),))
        if body["_type"] not in _TYPES:
            raise ValueError(f"a statement of type {body['_type']!r}")
        digests = tuple("sha256:" + str(subject["digest"].get("sha256")) for subject in body["subject"])
        names = tuple(str(subject.get("name") or "") for subject in body["subject"])
        kind, predicate = body["predicateType"], body.get("predicate") or {}
        if not isinstance(kind, str) or not isinstance(predicate, dict):
            raise ValueError("a predicate that is no object")
        return Statement(kind, digests, predicate, names)
    except (KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise ValueError(f"no statement: {type(problem).__name__} {problem}") from None
