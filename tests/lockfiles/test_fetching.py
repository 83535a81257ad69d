"""Fetching all that the locks name, and handing it through a mirror to a machine without network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import MissingEnvironmentError
from lockfiles import fetching, lockfile, store
from lockfiles.model import BaseLock, Deb, SetLock, Wheel
from lockfiles.python import shim
from lockfiles.sdists import build
from tests.lockfiles.conftest import artifact
from tests.lockfiles.small_index import Index, serving

pytestmark = pytest.mark.slow

DEB = artifact("libc6_2.36_amd64.deb")
PLAIN = artifact("one-1.0-py3-none-any.whl")
SOURCE = artifact("two-2.0.tar.gz")
BUILT = artifact("two-2.0-py3-none-any.whl")
TOOL = "tool-1.0-py3-none-any.whl"
SHIM = artifact(*shim.contents("three", "3.0"))


@pytest.fixture
def index(locks: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """A set with a wheel of each kind, and an index that has what is published; the deb was fetched, the wheel built before."""
    lockfile.write_base(BaseLock("", "2026-01-02", (Deb("libc6", "2.36", "amd64", DEB),)))
    wheels = (Wheel("one", "1.0", PLAIN), Wheel("three", "3.0", SHIM, shim=True), Wheel("two", "2.0", BUILT, SOURCE))
    lockfile.write_set(SetLock("small", "", "2026-01-02", "3.11.2", "2.36", wheels))
    for one in (DEB, BUILT):
        with store.adding(one) as out:
            out.write(one.file.encode())
    monkeypatch.setattr(build, "workshop", lambda *_: pytest.fail("a wheel was built"))
    with serving() as served:
        for one in (PLAIN, SOURCE):
            served.files[f"files/{one.file}"] = one.file.encode()
        served.add("tool", "1.0")
        digest = hashlib.sha256(served.files[f"files/{TOOL}"]).hexdigest()
        (locks / "toolkit.txt").write_text(f"tool==1.0 --hash=sha256:{digest}\n")
        monkeypatch.setenv("UV_DEFAULT_INDEX", served.address)
        monkeypatch.setenv("PIP_INDEX_URL", served.address)
        yield served


def held() -> set[str]:
    return {one.file for one in fetching.artifacts(["small"]) if store.has(one)}


def test_the_locks_artifacts_are_debs_wheels_of_all_kinds_and_sources(index: Index) -> None:
    assert fetching.artifacts(["small"]) == (DEB, PLAIN, SHIM, BUILT, SOURCE)
    assert fetching.artifacts([]) == (DEB,)


def test_fetch_brings_and_makes_what_is_missing(index: Index) -> None:
    fetching.fetch(["small"])
    # The source of a wheel that is there is not needed.
    assert held() == {DEB.file, PLAIN.file, SHIM.file, BUILT.file}
    store.verify([DEB, PLAIN, SHIM, BUILT])


def test_what_the_locks_name_survives_a_prune(index: Index) -> None:
    fetching.fetch(["small"])
    other = artifact("other-1.0-py3-none-any.whl")
    with store.adding(other) as out:
        out.write(other.file.encode())
    assert store.prune({one.sha256 for one in fetching.artifacts(["small"])}) == (1, other.size)
    assert held() == {DEB.file, PLAIN.file, SHIM.file, BUILT.file}


@pytest.mark.parametrize("form", ["folder", "http"])
def test_a_machine_without_network_gets_everything_from_the_mirror_and_builds_nothing(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    gap = tmp_path / "gap"
    everything = fetching.artifacts(["small"])
    tool = len(index.files[f"files/{TOOL}"])
    assert fetching.write_mirror(["small"], gap) == (5, sum(one.size for one in everything) - SHIM.size + tool)
    # Pip would take the shim for the package that it stands for.
    assert {file.name for file in (gap / "sha256").glob("*/*")} == {TOOL, *(one.file for one in everything)} - {SHIM.file}
    assert fetching.write_mirror(["small"], gap) == (0, 0)
    store.prune(set())
    assert held() == set()
    asked = len(index.asked)
    monkeypatch.setenv("PINWHEEL_OFFLINE", "1")
    if form == "http":
        # The same server, as a mirror now: what it serves of the index would be noticed below.
        index.files = {str(file.relative_to(gap)): file.read_bytes() for file in gap.rglob("*") if file.is_file()}
        monkeypatch.setenv("PINWHEEL_MIRROR", index.address.removesuffix("simple/"))
    else:
        monkeypatch.setenv("PINWHEEL_MIRROR", str(gap))
    fetching.fetch(["small"])
    assert held() == {DEB.file, PLAIN.file, SHIM.file, BUILT.file}
    store.verify([DEB, PLAIN, SHIM, BUILT])
    assert not [path for path, _ in index.asked[asked:] if not path.startswith("sha256/")]
    # The sources are there for who wants to build.
    assert fetching.write_mirror(["small"], tmp_path / "second") == (4, sum(one.size for one in everything) - SHIM.size)


def test_offline_a_full_store_is_enough(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    fetching.fetch(["small"])
    asked = len(index.asked)
    monkeypatch.setenv("PINWHEEL_OFFLINE", "1")
    fetching.fetch(["small"])
    assert len(index.asked) == asked


def test_offline_what_neither_store_nor_mirror_has_is_named(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetching.write_mirror(["small"], tmp_path / "gap")
    store.prune({DEB.sha256})
    for folder in (tmp_path / "gap/sha256").iterdir():
        if folder.name == PLAIN.sha256:
            (folder / PLAIN.file).unlink()
    monkeypatch.setenv("PINWHEEL_OFFLINE", "1")
    monkeypatch.setenv("PINWHEEL_MIRROR", str(tmp_path / "gap"))
    expected = (
        rf"one 1.0 is not in the store, and this run is offline \({PLAIN.file}, sha256 {PLAIN.sha256}\): run `invoke fetch`"
    )
    with pytest.raises(MissingEnvironmentError, match=expected):
        fetching.fetch(["small"])
