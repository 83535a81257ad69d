"""Wheels that hold only metadata, made here: a package that a set must have by name, and not by content."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile

from lockfiles import store
from lockfiles.model import Artifact, Wheel


def describe(file: str, data: bytes) -> Artifact:
    """The artifact of these bytes."""
    return Artifact(file, len(data), hashlib.sha256(data).hexdigest())


def make(name: str, version: str) -> Wheel:
    """Make a wheel that holds only the metadata of `name` `version`, put it into the store and describe it for the lock."""
    file, data = contents(name, version)
    artifact = describe(file, data)
    with store.adding(artifact) as out:
        out.write(data)
    return Wheel(name, version, artifact, shim=True)


def contents(name: str, version: str) -> tuple[str, bytes]:
    """File name and bytes of a metadata-only wheel (binary distribution format, "File contents"); a pure function."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    about = f"Name: {name}\nVersion: {version}\nSummary: metadata only, made by Pinwheel\nLicense-Expression: Apache-2.0\n"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.4\n{about}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: pinwheel\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text)}\n"
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            entry = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text)
    return f"{name.replace('-', '_')}-{version}-py3-none-any.whl", buffer.getvalue()
