"""A small set of locks of their own, in a folder of the test's own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common import paths
from lockfiles import inputs, lock, lockfile, store, toolkit
from lockfiles.audit import data
from lockfiles.inputs import SdistInput
from lockfiles.model import Artifact, BaseLock, Deb, SetLock, Wheel
from lockfiles.sdists import build as building
from tests.lockfiles.audit.records import write
from tests.lockfiles.small_index import Index, serving, wheel

POLICY = """
[licences]
forbidden = ["AGPL-*"]
unknown = "allow"
[licences.allowed_for]
[cooldown]
days = 7
"""
OLD = "2026-01-02T00:00:00Z"


def artifact(file: str, data: bytes = b"") -> Artifact:
    """An artifact whose bytes are `data`, or the name itself."""
    data = data or file.encode()
    return Artifact(file, len(data), hashlib.sha256(data).hexdigest())


@pytest.fixture
def locks(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Valid locks `base` and `small` with their inputs; returns their folder."""
    folder = own_folders / "lockfiles"
    folder.mkdir()
    policy = (paths.LOCKFILES / "policy.toml").read_text()
    monkeypatch.setattr(paths, "LOCKFILES", folder)
    monkeypatch.setattr(paths, "ROOT", own_folders)
    (own_folders / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = []\n'
        "[project.optional-dependencies]\ntest = []\n"
    )
    (folder / "policy.toml").write_text(policy)
    (folder / "base.in").write_text('packages = ["python3.11"]\nwithout = []\n')
    (folder / "small.in").write_text('requires = ["one==1.0"]\n')
    debs = [
        Deb("libc6", "2.36-9+deb12u14", "amd64", artifact("libc6_2.36-9+deb12u14_amd64.deb"), licence="LGPL-2.1-or-later"),
        Deb(
            "python3.11",
            "3.11.2-6+deb12u9",
            "amd64",
            artifact("python3.11_3.11.2-6+deb12u9_amd64.deb"),
            ("libc6",),
            licence="PSF-2.0",
        ),
    ]
    lockfile.write_base(BaseLock(inputs.read_base().digest, "2026-01-02", tuple(debs)))
    wheels = [
        Wheel("one", "1.0", artifact("one-1.0-py3-none-any.whl"), needs=("two>=2",), licence="MIT"),
        Wheel("two", "2.0", artifact("two-2.0-py3-none-any.whl"), sdist=artifact("two-2.0.tar.gz"), licence="MIT"),
    ]
    lockfile.write_set(SetLock("small", inputs.read_set("small").digest, "2026-01-02", "3.11.2", "2.36", tuple(wheels)))
    body = "one==1.0 \\\n    --hash=sha256:00\n"
    (folder / "toolkit.txt").write_text(toolkit._head(body, "2026-01-02") + body)
    return folder


def fill(one: Artifact, data: bytes) -> None:
    """Put bytes where the store would keep the artifact, whatever they are."""
    store.path(one).parent.mkdir(parents=True, exist_ok=True)
    store.path(one).write_bytes(data)


@pytest.fixture
def index(locks: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index with `one` 1.0, which needs `two`; `small.in` asks for `one`."""
    (locks / "small.in").write_text('requires = ["one"]\n')
    (locks / "small.lock").unlink()
    (locks / "toolkit.txt").unlink()
    (locks / "policy.toml").write_text(POLICY)
    base = lockfile.read_base()
    monkeypatch.setattr(lock, "_resolve_base", lambda *_: base)
    with serving() as server:
        monkeypatch.setenv("UV_DEFAULT_INDEX", server.address)
        # uv keeps what an index said; two tests' indexes may share a port.
        monkeypatch.setenv("XDG_CACHE_HOME", str(locks.parent / "uv"))
        server.add(
            "one", "1.0", "two>=1", "win>=1; sys_platform == 'win32'", "three; extra == 'more'", extras=["more"], uploaded=OLD
        )
        server.add("two", "1.0", uploaded=OLD)
        server.add("three", "1.0", uploaded=OLD)
        yield server


Known = Callable[..., None]


@pytest.fixture
def known(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Known:
    """Makes these records the advisory data."""
    folder = own_folders / "advisory-data"
    monkeypatch.setenv(data.VARIABLE, str(folder))

    def fetch(*records: dict[str, Any], debian: Any = None) -> None:
        write(folder, pypi=records, debian=debian)
        data.fetch()

    return fetch


def versions(name: str = "small") -> dict[str, str]:
    return {wheel.name: wheel.version for wheel in lockfile.read_set(name).wheels}


def built(monkeypatch: pytest.MonkeyPatch) -> list[Artifact]:
    """From now on a build gives a wheel of what the input states; returns the sources that were built, as they come."""
    sources: list[Artifact] = []

    def build(_: BaseLock, wanted: SdistInput, source: Artifact, __: object) -> Wheel:
        store.verified(source)
        sources.append(source)
        data = wheel(wanted.name, wanted.version, wanted.requires)
        made = artifact(f"{wanted.name}-{wanted.version}-py3-none-any.whl", data)
        with store.adding(made) as out:
            out.write(data)
        return Wheel(wanted.name, wanted.version, made, source, build=())

    monkeypatch.setattr(building, "lock_built", build)
    monkeypatch.setattr("lockfiles.debian.resolver.fetch", lambda _: None)
    return sources
