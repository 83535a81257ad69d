"""A light image with the programs of this checkout: an image that was built, without what is large in it."""

from __future__ import annotations

import io
import json
from typing import Any

from common.files import sha256_bytes
from common.single_node import REGISTRY
from images import files, spec
from images.tarball import LayerWriter
from k8s.prepare import checked
from oci.client.blob import Blob
from oci.client.client import Client
from oci.client.target import Registry
from oci.descriptor import LAYER, canonical

FROM, TO = "llama-factory-api-cpu", "test/light"
# What the programs of pods import lies in these.
_KEPT = ("base", "cryptography", "bucket", "config")


def built() -> str:
    """The digest of the image that was built and pushed; empty where the registry of this machine has none."""
    locked = checked.locked_images(required=False).get(FROM)
    with Client(Registry.parse(REGISTRY)) as client:
        return locked.digest if locked and client.find_manifest(FROM, locked.digest) else ""


def push(count: int) -> tuple[str, ...]:
    """Push that many images which differ in nothing but a word; their digests."""
    with Client(Registry.parse(REGISTRY), writes=True) as client:
        client.prepare()
        body: dict[str, Any] = json.loads(client.manifest(FROM, built()))
        config: dict[str, Any] = json.loads(client.read_blob(FROM, body["config"]["digest"], body["config"]["size"]))
        steps = [one for one in config["history"] if not one.get("empty_layer")]
        kept = [number for number, step in enumerate(steps) if step["created_by"].removeprefix("pinwheel: ").startswith(_KEPT)]
        layers, ids = ([one[number] for number in kept] for one in (body["layers"], config["rootfs"]["diff_ids"]))
        for layer in layers:
            assert client.mount(TO, layer["digest"], FROM)[0]
        plan, out = files.layer_plan(spec.read("api-cpu")), io.BytesIO()
        assert plan is not None
        writer = LayerWriter(out)
        files.fill(plan, writer)
        digest, diff_id = writer.close()
        data = out.getvalue()
        layers.append({"mediaType": layers[0]["mediaType"] if layers else LAYER, "digest": digest, "size": len(data)})
        _send(client, digest, data)
        made = {**config, "history": [], "rootfs": {"type": "layers", "diff_ids": [*ids, diff_id]}}
        digests = []
        for number in range(count):
            # In the configuration: containerd tells two manifests of one configuration apart by nothing.
            text = canonical({**made, "author": str(number)})
            _send(client, sha256_bytes(text), text)
            described = {**body["config"], "digest": sha256_bytes(text), "size": len(text)}
            manifest = canonical({**body, "config": described, "layers": layers})
            client.put_manifest(TO, sha256_bytes(manifest), manifest)
            digests.append(sha256_bytes(manifest))
    return tuple(digests)


def _send(client: Client, digest: str, data: bytes) -> None:
    with Blob("a part of the light image", digest, len(data), data) as blob:
        client.upload(TO, blob, lambda _: None)
