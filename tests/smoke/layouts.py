"""OCI layouts small enough for a test, real enough for an engine."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Sequence
from pathlib import Path

from common.files import sha256_bytes
from images.receipt import BuiltImage, BuiltLayer

# An x86-64 program for images without a system: it waits (pause, for ever) and so, being process 1, ignores SIGTERM.
_CODE = bytes.fromhex("b8 22 00 00 00  0f 05  eb f7")
_BASE, _HEADERS = 0x400000, 64 + 56
WAITS = (
    b"\x7fELF\x02\x01\x01"
    + bytes(9)
    + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    + struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, _HEADERS + len(_CODE), _HEADERS + len(_CODE), 0x1000)
    + _CODE
)


def layer(files: dict[str, bytes]) -> bytes:
    """A layer of executable files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def add(
    layout: Path, role: str, layers: list[bytes], *, name: str = "", user: str = "10001:10001", entrypoint: Sequence[str] = ()
) -> BuiltImage:
    """Put an image of these layers into the layout and return what a build receipt says of it."""
    digests = [_blob(layout, data) for data in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"User": user, "WorkingDir": "/workspace", "Entrypoint": list(entrypoint)},
        "rootfs": {"type": "layers", "diff_ids": digests},
        "history": [{"created_by": "pinwheel: test"} for _ in digests],
    }
    media = "application/vnd.oci.image."
    config_digest, size = _blob(layout, body := json.dumps(config).encode()), len(body)
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{media}manifest.v1+json",
        "config": {"mediaType": f"{media}config.v1+json", "digest": config_digest, "size": size},
        "layers": [
            {"mediaType": f"{media}layer.v1.tar", "digest": digest, "size": len(data)}
            for digest, data in zip(digests, layers, strict=True)
        ],
        "annotations": {
            f"org.opencontainers.image.{key}": value for key, value in (("version", "1"), ("revision", "sha256:0"))
        },
    }
    return BuiltImage(
        name=name or f"test-{role}",
        role=role,
        version="1",
        digest=_blob(layout, json.dumps(manifest).encode()),
        config_digest=config_digest,
        size=sum(map(len, layers)),
        unpacked=sum(map(len, layers)),
        inputs="sha256:0",
        layers=tuple(
            BuiltLayer("test", digest, digest, len(data), len(data), reused=False)
            for digest, data in zip(digests, layers, strict=True)
        ),
    )


def _blob(layout: Path, data: bytes) -> str:
    digest = sha256_bytes(data)
    file = layout / "blobs" / digest.replace(":", "/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return digest
