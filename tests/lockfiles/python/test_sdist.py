"""Wheels of our own making."""

from __future__ import annotations

import importlib.metadata
import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from common import paths
from common.errors import BuildError, LockError
from lockfiles import lockfile, store
from lockfiles.debian import resolver
from lockfiles.inputs import SdistInput
from lockfiles.model import Artifact, SetLock
from lockfiles.python import index, sdist
from tests.lockfiles.conftest import artifact

SETUP = "from setuptools import setup\nsetup(name='one', version='1.0', py_modules=['one'], install_requires=[{requires}])\n"


def test_a_shim_is_the_same_wheel_everywhere_and_the_lock_holds_its_hash(own_folders: Path) -> None:
    wheel = sdist.shim("vllm", "0.28.0+cpu")
    assert store.has(wheel.artifact)
    assert wheel.artifact == next(w.artifact for w in lockfile.read_set("api-cpu").wheels if w.name == "vllm")


def test_a_shim_is_a_distribution_that_metadata_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, data = sdist.shim_bytes("some-name", "1.2+cpu")
    assert file == "some_name-1.2+cpu-py3-none-any.whl"
    zipfile.ZipFile(io.BytesIO(data)).extractall(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert importlib.metadata.version("some-name") == "1.2+cpu"
    assert {str(f) for f in importlib.metadata.files("some-name") or []} == set(zipfile.ZipFile(io.BytesIO(data)).namelist())


def test_a_set_that_builds_from_source_needs_setuptools(own_folders: Path) -> None:
    with pytest.raises(LockError, match="small builds from source but holds no setuptools"):
        sdist.backend_of(SetLock("small", "", "", "3.11.2", "2.36", ()))


def _sdist(files: dict[str, str]) -> Artifact:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    made = artifact("one-1.0.tar.gz", buffer.getvalue())
    with store.adding(made) as out:
        out.write(buffer.getvalue())
    return made


@pytest.fixture(scope="module")
def backend() -> Artifact:
    """The base and setuptools of the real locks, in the user's own store: 127 MB on a fresh machine."""
    resolver.fetch(lockfile.read_base().debs)
    wheel = next(w for w in lockfile.read_set("train").wheels if w.name == "setuptools").artifact
    with index.session() as http:
        store.download([wheel], index.Locator(http), http)
    return wheel


@pytest.mark.host
def test_a_source_builds_to_one_wheel_without_network_in_the_bases_own_python(backend: Artifact) -> None:
    spy = (
        "import socket, sys, pathlib\n"
        "assert sys.version.startswith('3.11.2 '), sys.version\n"
        f"assert not pathlib.Path({str(paths.ROOT)!r}).exists() and not pathlib.Path('/proc/self').exists()\n"
        "try:\n    socket.create_connection(('127.0.0.1', 5000), 1)\nexcept OSError as e:\n    assert e.errno == 101, e\n"
        "else:\n    raise SystemExit('network')\n"
    )
    source = _sdist({"one-1.0/setup.py": spy + SETUP.format(requires="'two'"), "one-1.0/one.py": "x = 1\n"})
    wheel = sdist.lock_built(lockfile.read_base(), SdistInput("one", "1.0", ("two",)), source, backend)
    names = zipfile.ZipFile(store.verified(wheel.artifact)).namelist()
    assert "one.py" in names
    assert wheel.sdist == source


@pytest.mark.host
def test_a_source_that_asks_for_other_packages_than_stated_is_refused(backend: Artifact) -> None:
    source = _sdist({"one-1.0/setup.py": SETUP.format(requires="'evil'"), "one-1.0/one.py": ""})
    with pytest.raises(LockError, match=r"one-1.0.tar.gz requires \['evil'\], the input states \[\]"):
        sdist.lock_built(lockfile.read_base(), SdistInput("one", "1.0", ()), source, backend)


@pytest.mark.host
def test_a_source_whose_wheel_differs_each_time_is_refused(backend: Artifact) -> None:
    setup = "import os, pathlib\npathlib.Path('one.py').write_text(f'x = {os.urandom(8)!r}')\n" + SETUP.format(requires="")
    source = _sdist({"one-1.0/setup.py": setup, "one-1.0/one.py": ""})
    with pytest.raises(BuildError, match=r"one-1.0.tar.gz gives another wheel at each build"):
        sdist.lock_built(lockfile.read_base(), SdistInput("one", "1.0", ()), source, backend)


@pytest.mark.host
@pytest.mark.parametrize(
    "files",
    [
        {"one-1.0/setup.py": "raise SystemExit('broken')"},
        {"../../evil": "x"},
        {"/etc/evil": "x", "b/c": ""},
        {"a/b": "", "c/d": ""},
    ],
)
def test_a_broken_or_hostile_source_is_refused_by_name(backend: Artifact, files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="one-1.0.tar.gz"):
        sdist.build(lockfile.read_base(), _sdist(files), backend, tmp_path)
