"""An OCI image layout, held against the image specification 1.1; it shares no code with the builder.

image-layout.md, image-index.md, manifest.md, config.md, descriptor.md.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import zstandard

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# annotations.md, org.opencontainers.image.ref.name.
_REF = re.compile(r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*(?:/[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*)*")
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def check_layout(root: Path) -> dict[str, str]:
    """Check a whole layout, every blob of it; returns the digest of each listed image by its name and tag."""
    assert json.loads((root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    for file in (root / "blobs" / "sha256").iterdir():
        if not file.name.startswith("."):
            assert hashlib.sha256(file.read_bytes()).hexdigest() == file.name, f"{file.name} holds other bytes"
    index = json.loads((root / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    listed = {}
    for entry in index["manifests"]:
        assert entry["mediaType"] == _MANIFEST
        name = entry["annotations"]["org.opencontainers.image.ref.name"]
        assert _REF.fullmatch(name)
        assert name not in listed, f"{name} is listed twice"
        listed[name] = str(entry["digest"])
        _check_manifest(root, json.loads(_blob(root, entry)))
    return listed


def check_by_skopeo(root: Path, listed: dict[str, str], scratch: Path) -> None:
    """Let skopeo read and copy every listed image."""
    scratch.mkdir(parents=True)
    for number, (name, digest) in enumerate(listed.items()):
        raw = _skopeo("inspect", "--raw", f"oci:{root}:{name}")
        assert "sha256:" + hashlib.sha256(raw).hexdigest() == digest
        _skopeo("copy", "--quiet", "--preserve-digests", f"oci:{root}:{name}", f"dir:{scratch / str(number)}")


def _skopeo(*arguments: str) -> bytes:
    done = subprocess.run(["skopeo", *arguments], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def _check_manifest(root: Path, manifest: dict[str, Any]) -> None:
    assert manifest["schemaVersion"] == 2
    assert manifest["mediaType"] == _MANIFEST
    assert all(isinstance(v, str) and k for k, v in manifest["annotations"].items())
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    config = json.loads(_blob(root, manifest["config"]))
    assert (config["architecture"], config["os"]) == ("amd64", "linux")
    assert config["rootfs"]["type"] == "layers"
    diff_ids = []
    for layer in manifest["layers"]:
        assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+zstd"
        tar = hashlib.sha256()
        with zstandard.ZstdDecompressor().stream_reader(_blob(root, layer), read_across_frames=True) as stream:
            while chunk := stream.read(1 << 20):
                tar.update(chunk)
        diff_ids.append(f"sha256:{tar.hexdigest()}")
    assert diff_ids
    assert config["rootfs"]["diff_ids"] == diff_ids
    assert len([h for h in config["history"] if not h.get("empty_layer")]) == len(diff_ids)


def _blob(root: Path, descriptor: dict[str, Any]) -> bytes:
    assert isinstance(descriptor["size"], int)
    assert _DIGEST.fullmatch(descriptor["digest"])
    data: bytes = (root / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
    assert len(data) == descriptor["size"]
    assert "sha256:" + hashlib.sha256(data).hexdigest() == descriptor["digest"]
    return data
