"""Sdists made on the spot."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping

from lockfiles import store
from lockfiles.model import Artifact
from tests.lockfiles.conftest import artifact

# A backend in the sdist's own tree (PEP 517, "backend-path"): nothing has to be fetched to run it.
OWN = '[build-system]\nrequires = [{requires}]\nbuild-backend = "own"\nbackend-path = ["."]\n'
# It writes a wheel of `one` 1.0 that holds the files below `src`; `NAME`, `VERSION`, `REQUIRES` and `TAG` may be set before.
BACKEND = """
import os, pathlib, zipfile
NAME, VERSION, REQUIRES, TAG, ASKS = "one", "1.0", [], "py3-none-any", []
{settings}
def get_requires_for_build_wheel(config_settings=None):
    return ASKS
def build_wheel(folder, config_settings=None, metadata_directory=None):
    {before}
    info = f"{{NAME}}-{{VERSION}}.dist-info"
    files = {{str(p.relative_to("src")): p.read_bytes() for p in sorted(pathlib.Path("src").rglob("*")) if p.is_file()}}
    about = f"Metadata-Version: 2.1\\nName: {{NAME}}\\nVersion: {{VERSION}}\\n"
    files[f"{{info}}/METADATA"] = (about + "".join(f"Requires-Dist: {{r}}\\n" for r in REQUIRES)).encode()
    files[f"{{info}}/WHEEL"] = f"Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: {{TAG}}\\n".encode()
    files[f"{{info}}/RECORD"] = b""
    name = f"{{NAME}}-{{VERSION}}-{{TAG}}.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path), data)
    return name
"""


def own_backend(settings: str = "", before: str = "pass", requires: str = "") -> dict[str, str]:
    """The files of an sdist that brings its backend along.

    Args:
        settings: Python, before the wheel is described.
        before: Python, one line, before the wheel is written.
        requires: of its [build-system], as TOML's strings.
    """
    return {
        "one-1.0/pyproject.toml": OWN.format(requires=requires),
        "one-1.0/own.py": BACKEND.format(settings=settings, before=before),
        "one-1.0/src/one.py": "x = 1\n",
    }


def tar_gz(files: Mapping[str, str | tarfile.TarInfo]) -> bytes:
    """A .tar.gz; a TarInfo is put in as it is, without contents."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            if isinstance(text, tarfile.TarInfo):
                archive.addfile(text)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def zipped(files: Mapping[str, str]) -> bytes:
    """A .zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def stored(file: str, data: bytes) -> Artifact:
    """An artifact that the store has."""
    made = artifact(file, data)
    with store.adding(made) as out:
        out.write(data)
    return made
