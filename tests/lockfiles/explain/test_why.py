"""`lock --explain NAME`: who needs a locked package, what holds its version, what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import LockError, UsageError
from lockfiles import explain, inputs, lockfile
from lockfiles.explain.why import Edge, Graph
from lockfiles.model import Artifact, BaseLock, Deb, SetLock, Wheel
from tests.lockfiles.small_index import Index, serving


def wheel(name: str, version: str, size: int, *needs: str, shim: bool = False) -> Wheel:
    file = f"{name}-{version}-py3-none-any.whl"
    return Wheel(name, version, Artifact(file, size, "ab" * 32), shim=shim, needs=needs, licence="MIT")


def lock_set(folder: Path, name: str, text: str, *wheels: Wheel) -> None:
    (folder / f"{name}.in").write_text(text)
    digest = inputs.read_set(name).digest
    lockfile.write_set(SetLock(name, digest, "2026-01-02", "3.11.2", "2.36", tuple(sorted(wheels, key=lambda w: w.name))))


@pytest.fixture
def sets(locks: Path) -> Path:
    """Sets `big` and `side`: app → (mid → core, deep), and core at two versions."""
    lock_set(
        locks,
        "big",
        'requires = ["app[web]==1.0", "core==2.0; python_version > \'3\'", "lone; sys_platform == \'win32\'"]\n',
        wheel("app", "1.0", 1_000_000, "mid>=1", "core<3,>=1"),
        wheel("mid", "1.5", 2_000_000, "core<2.5", "deep"),
        wheel("core", "2.0", 4_000_000),
        wheel("deep", "0.1", 8_000_000),
    )
    lock_set(
        locks,
        "side",
        'requires = ["mid==1.5"]\noverrides = ["core==1.0"]\n[shims]\nfake = "9+cpu"\n',
        wheel("mid", "1.5", 2_000_000, "core<2.5", "deep"),
        wheel("core", "1.0", 3_000_000),
        wheel("deep", "0.1", 8_000_000),
        wheel("fake", "9+cpu", 500, shim=True),
    )
    return locks


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    with serving() as one:
        monkeypatch.setenv("UV_DEFAULT_INDEX", one.address)
        yield one


def told(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    explain.explain(name)
    return " ".join(capsys.readouterr().out.replace("\n", " | ").split())


def test_each_way_to_a_package_is_shown_with_the_words_of_every_step(
    sets: Path, small: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told("core", capsys)
    assert "core 2.0 in big: a wheel of 4.0 MB" in said
    assert "| big.in: core==2.0 | big.in: app[web]==1.0 → core<3,>=1 | big.in: app[web]==1.0 → mid>=1 → core<2.5 |" in said
    assert "core 1.0 in side: a wheel of 3.0 MB | who needs it: | side.in: mid==1.5 → core<2.5 |" in said
    assert "win32" not in said


def test_a_package_of_several_sets_is_told_once(sets: Path, small: Index, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain.explain("DEEP") == "DEEP is in big, side"
    said = capsys.readouterr().out
    assert said.count("deep 0.1 in big, side: a wheel of 8.0 MB") == 1
    assert "big, side: without it 8.0 MB less, it alone" in said
    assert "why that version: nobody asks for one" in said


def test_dropping_a_package_frees_what_only_it_needs(sets: Path, small: Index, capsys: pytest.CaptureFixture[str]) -> None:
    said = told("mid", capsys)
    assert "big: without it 10.0 MB less, it and 1 that only it needs: deep |" in said
    assert "side: without it 13.0 MB less, it and 2 that only it needs: core, deep |" in said


def test_the_tightest_bound_and_what_excludes_the_newest_are_named(
    sets: Path, small: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in ("1.0", "2.0", "2.4", "2.6", "3.0"):
        small.add("core", version)
    small.add("core", "4.0", tag="cp312-cp312-win_amd64")
    small.add("core", "4.1rc1")
    small.add("core", "4.2", yanked=True)
    said = told("core", capsys)
    assert "| app 1.0 needs >=1,<3 | big.in needs ==2.0 | mid 1.5 needs <2.5 |" in said
    assert (
        "the tightest bound from above: big.in needs ==2.0 | 3.0 is on your index; excluded by app 1.0, big.in, mid 1.5" in said
    )
    # The override stands for all that ask.
    assert "| side.in, overrides needs ==1.0 | the tightest bound from above: side.in, overrides needs ==1.0 |" in said


@pytest.mark.parametrize(
    ("bounds", "tightest"),
    [
        (["core<3", "core<=2.9"], ["<=2.9"]),
        (["core<3", "core<=3"], ["<3"]),
        (["core~=2.0", "core<2.9"], ["<2.9"]),
        (["core~=2.0.0", "core<2.2"], ["~=2.0.0"]),
        (["core==2.*", "core<3.1"], ["==2.*"]),
        (["core>=1,<2.5", "core>=2,<2.5"], [">=1,<2.5", ">=2,<2.5"]),
        (["core>=1", "core!=3"], []),
    ],
)
def test_the_lowest_of_the_upper_bounds_is_the_tightest(
    bounds: list[str], tightest: list[str], locks: Path, small: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    askers = [wheel(f"asker{number}", "1", 1, bound) for number, bound in enumerate(bounds)]
    text = f"requires = {[asker.name for asker in askers]}\n".replace("'", '"')
    lock_set(locks, "big", text, *askers, wheel("core", "2.0", 1))
    explain.explain("core")
    line = [line for line in capsys.readouterr().out.splitlines() if "tightest" in line]
    assert [part.partition(" needs ")[2] for part in line[0].split(", ")] == tightest if tightest else not line


def test_a_newer_version_that_nothing_excludes_is_offered(sets: Path, small: Index, capsys: pytest.CaptureFixture[str]) -> None:
    small.add("deep", "0.1")
    small.add("deep", "0.2")
    assert "no requirement here excludes 0.2: `invoke lock --upgrade deep` would try it" in told("deep", capsys)
    small.files.clear()
    small.add("deep", "0.1")
    assert "0.1 is the newest on your index" in told("deep", capsys)


def test_all_but_the_newest_version_is_told_without_an_index(
    sets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as gone:
        monkeypatch.setenv("UV_DEFAULT_INDEX", gone.address)
    said = told("mid", capsys)
    assert "side.in: mid==1.5" in said
    assert "whether there is a newer one was not asked: your index does not answer for mid" in said
    monkeypatch.setenv("PINWHEEL_OFFLINE", "1")
    assert "whether there is a newer one was not asked:" in told("mid", capsys)


def test_a_shim_is_called_one(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = told("fake", capsys)
    assert "fake 9+cpu in side: a shim, metadata only, of 500 B | who needs it: | side.in: fake==9+cpu |" in said
    assert "your index" not in said


def test_an_input_that_changed_since_is_said(sets: Path, small: Index, capsys: pytest.CaptureFixture[str]) -> None:
    (sets / "side.in").write_text('requires = ["mid==1.5", "new"]\n')
    explain.explain("deep")
    assert "side.in changed since it was locked" in capsys.readouterr().err


def test_a_deb_is_explained_too(locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def deb(name: str, size: int, *needs: str, essential: bool = False) -> Deb:
        return Deb(name, "1-2", "amd64", Artifact(f"{name}_1-2_amd64.deb", size, "cd" * 32), needs, essential, "MIT")

    old = lockfile.read_base()
    more = (deb("dash", 50_000, "libc6", essential=True), deb("libx", 30_000, "libc6", "liby"), deb("liby", 20_000))
    python = next(one for one in old.debs if one.name == "python3.11")
    debs = sorted((*(one for one in old.debs if one != python), *more, deb_needing(python, "libx")), key=lambda one: one.name)
    lockfile.write_base(BaseLock(old.inputs, old.date, tuple(debs)))
    said = told("libx", capsys)
    assert "libx 1-2 in base: a deb of 30.0 kB | who needs it: | base.in: python3.11 → libx |" in said
    assert "base: without it 50.0 kB less, it and 1 that only it needs: liby |" in said
    assert "base.in: dash, essential in Debian → libc6" in told("libc6", capsys)


def deb_needing(one: Deb, name: str) -> Deb:
    return Deb(one.name, one.version, one.arch, one.artifact, (*one.needs, name), one.essential, one.licence)


@pytest.mark.parametrize(("name", "near"), [("cores", "near: core"), ("dep", "near: deep"), ("zzzzzz", "check its name")])
def test_an_unknown_package_is_refused_with_near_names(name: str, near: str, sets: Path) -> None:
    with pytest.raises(UsageError, match=rf"^no lock holds {name} \(lockfiles/\): {near}"):
        explain.explain(name)


def test_a_lock_edited_by_hand_is_refused(sets: Path) -> None:
    file = sets / "big.lock"
    file.write_text(file.read_text().replace("mid>=1", "mid>=0"))
    with pytest.raises(LockError):
        explain.explain("mid")


def test_who_needs_each_other_in_a_circle_ends() -> None:
    edges = [Edge("a", "b", "b"), Edge("b", "a", "a"), Edge("b", "c", "c")]
    graph = Graph([Edge("x.in", "a", "a")], edges, {"a": 1, "b": 2, "c": 4})
    assert [[edge.words for edge in chain] for chain in graph.chains("a")] == [["a"]]
    assert [[edge.words for edge in chain] for chain in graph.chains("c")] == [["a", "b", "c"]]
    assert graph.freed("b") == ("b", "c")
    assert graph.freed("a") == ("a", "b", "c")
