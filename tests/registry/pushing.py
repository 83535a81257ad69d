"""One image in a double, pushed proof, and what others attach to it."""

from __future__ import annotations

import dataclasses
import datetime
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from oci import attachments, statement
from oci.attachments import Attached
from oci.client.client import Client
from oci.client.target import Registry
from oci.descriptor import INDEX, MANIFEST, canonical
from oci.reference import ImageRef
from registry import inspect
from registry.attach import Proof, deliver
from registry.policy import Policy
from registry.signer import Signer
from tests.oci.conftest import QUICK
from tests.oci.double import Double, digest_of
from tests.registry import signing
from tests.registry.signing import OTHER, OWN

CONFIG = digest_of(b"{}")
IMAGE = canonical({"schemaVersion": 2, "mediaType": MANIFEST, "config": {"digest": CONFIG}, "layers": []})
DIGEST = digest_of(IMAGE)
REPOSITORY = "team/llama-factory-train"


def holds_image(double: Double) -> None:
    """Put the image there, as a push does."""
    double.blobs[REPOSITORY][digest_of(b"{}")] = b"{}"
    double.manifests[REPOSITORY]["1"] = double.manifests[REPOSITORY][DIGEST] = (MANIFEST, IMAGE)


class Local(Signer):
    """A key at hand instead of one that cosign holds."""

    def sign(self, data: bytes) -> bytes:
        return {"own": OWN, "other": OTHER}[self.key].sign(data, ec.ECDSA(hashes.SHA256()))


MINE, THEIRS = Local("own", OWN.public_key()), Local("other", OTHER.public_key())


def proof(*, smoke: dict[str, Any] | None = None, source: str = signing.COMMIT) -> Proof:
    predicates = {statement.SBOM: signing.COMPONENTS, statement.PROVENANCE: signing.build(source=source, config_digest=CONFIG)}
    if smoke:
        predicates[statement.SMOKE] = smoke
    return Proof(dataclasses.replace(signing.BUILT, digest=DIGEST), predicates)


def ago(hours: int) -> str:
    return (datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=hours)).isoformat(timespec="seconds")


EARLIER, LATER = ago(2), ago(1)


def ran(**options: Any) -> dict[str, Any]:
    return signing.smoke(**{"train_digest": DIGEST, "started": EARLIER, **options})


def push(double: Double, what: Proof, key: Signer = MINE) -> None:
    with Client(Registry.parse(f"{double.address}/team"), QUICK, writes=True) as client:
        deliver(client, what, key)


def attached(double: Double) -> list[Attached]:
    with Client(Registry(double.address, ""), QUICK) as client:
        return attachments.read(client, REPOSITORY, DIGEST)


def kinds(double: Double) -> list[str]:
    return sorted(statement.parse(one.envelope).kind for one in attached(double) if one.envelope)


def reference(double: Double, tag: str = "1") -> ImageRef:
    return ImageRef(double.address, REPOSITORY, tag)


def holds(double: Double, policy: Policy | None = None) -> bool:
    return inspect.look(reference(double), OWN.public_key(), policy or Policy())[1].holds


def bundle(double: Double, *more: Attached) -> None:
    """Attach as cosign 3 does: a bundle in a manifest that names its subject, and a list of those where the API is lacking."""
    listed = []
    for one in more:
        assert one.envelope is not None
        body = one.bundle or json.dumps({"mediaType": "x", "dsseEnvelope": json.loads(one.envelope.json())}).encode()
        kind = "application/vnd.dev.sigstore.bundle.v0.3+json"
        manifest = canonical(
            {
                **{"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "subject": {"digest": DIGEST}},
                "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}")},
                "layers": [{"mediaType": kind, "digest": digest_of(body), "size": len(body)}],
            }
        )
        double.blobs[REPOSITORY][digest_of(body)] = body
        double.manifests[REPOSITORY][digest_of(manifest)] = (MANIFEST, manifest)
        listed.append({"mediaType": MANIFEST, "digest": digest_of(manifest), "size": len(manifest)})
    if not double.referrers:
        index = canonical({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed})
        double.manifests[REPOSITORY][DIGEST.replace(":", "-")] = (INDEX, index)
