"""The last layer and the image's configuration and manifest (OCI image spec 1.1, "Image Configuration", "Image Manifest")."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import BuildError
from images.layer import Layer
from images.spec import ImageSpec
from images.tarball import LayerWriter
from images.wheels.install import PREFIX, Files
from oci.descriptor import CONFIG, LAYER, MANIFEST, Descriptor, canonical
from oci.layout import Layout

# The name of the base image, in annotations and in the layout.
BASE = "pinwheel-base"
_ANNOTATION = "org.opencontainers.image."


@dataclass(frozen=True, slots=True)
class Accounts:
    """The base's account files."""

    passwd: str
    group: str


def accounts(tar: Path) -> Accounts:
    """Read the account files out of the base's tar."""
    found: dict[str, str] = {}
    with tarfile.open(tar) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if name in ("etc/passwd", "etc/group") and (file := archive.extractfile(member)):
                found[name] = file.read().decode()
            if len(found) == 2:
                return Accounts(found["etc/passwd"], found["etc/group"])
    raise BuildError("the base has no account files", where=str(tar), fix="base.in must hold Debian's essential packages")


def fill(spec: ImageSpec, base: Accounts, python: str, writer: LayerWriter) -> Files:
    """Write what makes the image run: its user, its folders, the virtual environment's frame.

    Args:
        spec: the image.
        base: the base's account files.
        python: the base's version of Python, `3.11.2`.
        writer: the layer.
    """
    account = f"{spec.user}:x:{spec.uid}:{spec.uid}:{spec.user}:{spec.workdir}:/bin/bash\n"
    # What makes a virtual environment (PEP 405), and no more: nobody activates it, PATH names it; and no pip.
    pyvenv = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\nexecutable = /usr/bin/python3.11\n"
    writer.folder("app")
    for path, text in (("etc/group", base.group + f"{spec.user}:x:{spec.uid}:\n"), ("etc/passwd", base.passwd + account)):
        writer.file(path, len(text.encode()), [text.encode()])
    writer.link(f"{PREFIX}/bin/python", "/usr/bin/python3.11")
    for name in ("python3", "python3.11"):
        writer.link(f"{PREFIX}/bin/{name}", "python")
    writer.file(f"{PREFIX}/pyvenv.cfg", len(pyvenv.encode()), [pyvenv.encode()])
    writer.folder(spec.workdir.lstrip("/"), owner=spec.uid)
    writer.end()
    return {}


def created(date: str) -> str:
    """The creation time of an image whose newest lock is of `date` (RFC 3339)."""
    return f"{date}T00:00:00Z"


def base_image(layout: Layout, layer: Layer, version: str, date: str) -> Descriptor:
    """Write configuration and manifest of the base alone: what other images name as their base."""
    annotations = {
        _ANNOTATION + "title": "Pinwheel base",
        _ANNOTATION + "description": "Debian 12 with Python 3.11.2 and a compiler",
        _ANNOTATION + "version": version,
        _ANNOTATION + "created": created(date),
    }
    return _write(layout, [layer], {"Cmd": ["/usr/bin/python3.11"]}, annotations, date)


def image(
    layout: Layout, spec: ImageSpec, layers: list[Layer], *, base: Descriptor, version: str, inputs: str, date: str
) -> tuple[Descriptor, Descriptor]:
    """Write configuration and manifest of an image; returns the descriptors of both, manifest first.

    Args:
        layout: holds the layers.
        spec: the image.
        layers: from the bottom up.
        base: manifest of the base image.
        version: the image's.
        inputs: digest of all it was made from.
        date: of its newest lock.
    """
    annotations = {
        _ANNOTATION + "title": spec.title,
        _ANNOTATION + "description": spec.description,
        _ANNOTATION + "licenses": spec.licenses,
        _ANNOTATION + "source": spec.source,
        _ANNOTATION + "vendor": spec.vendor,
        _ANNOTATION + "version": version,
        # Not git's revision, which would give equal images unequal digests: see docs/adr/0005.
        _ANNOTATION + "revision": inputs,
        _ANNOTATION + "created": created(date),
        _ANNOTATION + "base.name": BASE,
        _ANNOTATION + "base.digest": base.digest,
    }
    config = {
        "User": f"{spec.uid}:{spec.uid}",
        "WorkingDir": spec.workdir,
        "Env": [f"{name}={value}" for name, value in spec.env],
        "Cmd": list(spec.cmd),
        "ExposedPorts": {f"{port}/tcp": {} for port in spec.ports},
        "Labels": annotations,
        "StopSignal": "SIGTERM",
    }
    manifest = _write(layout, layers, config, annotations, date)
    read = layout.read(manifest.digest)["config"]
    return manifest, Descriptor(read["mediaType"], read["digest"], read["size"])


def _write(layout: Layout, layers: list[Layer], config: dict[str, Any], annotations: dict[str, str], date: str) -> Descriptor:
    body = {
        "architecture": "amd64",
        "os": "linux",
        "created": created(date),
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": created(date), "created_by": f"pinwheel: {layer.what}"} for layer in layers],
    }
    described = layout.add(CONFIG, canonical(body))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described.json(),
        "layers": [Descriptor(LAYER, layer.digest, layer.size).json() for layer in layers],
        "annotations": annotations,
    }
    return layout.add(MANIFEST, canonical(manifest))
