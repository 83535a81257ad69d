"""The last layer and the image's configuration and manifest (OCI image spec 1.1, "Image Configuration", "Image Manifest")."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import BuildError, UsageError
from images import certificates
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
    """What the last layer adds to: the base's account files and the authorities that it trusts.

    Attributes:
        passwd, group: the files.
        bundle: of certificates; empty where the base has none.
        links: names of files beside the bundle.
    """

    passwd: str
    group: str
    bundle: str = ""
    links: frozenset[str] = frozenset()


def accounts(tar: Path) -> Accounts:
    """Read the account files and the trusted authorities out of the base's tar."""
    found: dict[str, str] = {}
    links: set[str] = set()
    with tarfile.open(tar) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            folder, _, last = name.rpartition("/")
            if name in ("etc/passwd", "etc/group", certificates.BUNDLE) and (file := archive.extractfile(member)):
                found[name] = file.read().decode()
            elif folder == certificates.FOLDER:
                links.add(last)
            elif len(found) == 3 and name > "etc0":
                break
    try:
        return Accounts(found["etc/passwd"], found["etc/group"], found.get(certificates.BUNDLE, ""), frozenset(links))
    except KeyError:
        fix = "base.in must hold Debian's essential packages"
        raise BuildError("the base has no account files", where=str(tar), fix=fix) from None


def fill(spec: ImageSpec, base: Accounts, python: str, tree: Path, writer: LayerWriter) -> Files:
    """Write what makes the image run: its user, its folders, the virtual environment's frame, the authorities it trusts.

    Args:
        spec: the image.
        base: the base's account files.
        python: the base's version of Python, `3.11.2`.
        tree: the base's root file system.
        writer: the layer.

    Raises:
        UsageError: the base has the user already.
        BuildError: there is no bundle of certificates to add to.
    """
    _check_account(spec, base)
    if spec.certificates and not base.bundle:
        fix = "name ca-certificates in base.in, and run `invoke lock`"
        raise BuildError(
            "the base trusts no authorities yet, to which `certificates` could add", where="lockfiles/base.in", fix=fix
        )
    account = f"{spec.user}:x:{spec.uid}:{spec.uid}:{spec.user}:{spec.workdir}:/bin/bash\n"
    # What makes a virtual environment (PEP 405), and no more: nobody activates it, PATH names it; and no pip.
    pyvenv = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\nexecutable = /usr/bin/python3.11\n"
    writer.folder("app")
    texts = [("etc/group", base.group + f"{spec.user}:x:{spec.uid}:\n"), ("etc/passwd", base.passwd + account)]
    if spec.certificates:
        texts += [(certificates.BUNDLE, certificates.bundle(base.bundle, spec.certificates))]
        texts += certificates.files(spec.certificates)
    for path, text in texts:
        writer.file(path, len(text.encode()), [text.encode()])
    for path, target in certificates.links(spec.certificates, tree, base.links):
        writer.link(path, target)
    writer.link(f"{PREFIX}/bin/python", "/usr/bin/python3.11")
    for name in ("python3", "python3.11"):
        writer.link(f"{PREFIX}/bin/{name}", "python")
    writer.file(f"{PREFIX}/pyvenv.cfg", len(pyvenv.encode()), [pyvenv.encode()])
    writer.folder(spec.workdir.lstrip("/"), owner=spec.uid)
    writer.end()
    return {}


def _check_account(spec: ImageSpec, base: Accounts) -> None:
    """Two entries of one name, or of one number, would leave open who runs."""
    for file, text in (("/etc/passwd", base.passwd), ("/etc/group", base.group)):
        for name, _, number, *_ in (line.split(":") for line in text.splitlines() if line.count(":") >= 2):
            for key, value, taken in (("user", spec.user, name), ("uid", str(spec.uid), number)):
                if value == taken:
                    what = f"{key}: the base has {value} in {file} already, for {name} ({number})"
                    raise UsageError(what, where="images/shared.toml", fix="choose another one")


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
        "Labels": {**dict(spec.labels), **annotations},
        "StopSignal": "SIGTERM",
    }
    if spec.entrypoint:
        config["Entrypoint"] = list(spec.entrypoint)
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
