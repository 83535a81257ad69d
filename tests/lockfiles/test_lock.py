"""`invoke lock` as a whole: real uv against a small index; only the base is given."""

from __future__ import annotations

import datetime
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from common import offline, paths
from common.errors import BuildError, LockError, MissingEnvironmentError, UsageError
from lockfiles import changes, check, fetching, inputs, licences, lock, lockfile, toolkit
from lockfiles.debian import resolver
from lockfiles.model import Artifact, BaseLock, SetLock
from lockfiles.models import lockfile as models_lock
from lockfiles.sdists import build
from tests.lockfiles import hub_server
from tests.lockfiles.conftest import OLD, versions
from tests.lockfiles.models import steps
from tests.lockfiles.small_index import Index
from tests.lockfiles.small_index import wheel as small_wheel

pytestmark = pytest.mark.slow


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_lock_holds_what_was_asked_for_and_what_that_needs(index: Index) -> None:
    lock.write_all()
    small = lockfile.read_set("small")
    assert versions() == {"one": "1.0", "two": "1.0"}
    # The marker does not hold on Linux, and nobody asks for the extra.
    assert [wheel.needs for wheel in small.wheels] == [("two>=1",), ()]
    assert small.gpu is None
    check.check()


def test_locking_downloads_no_wheel_whole(index: Index) -> None:
    lock.write_all()
    wheels = [(path, span) for path, span in index.asked if path.endswith(".whl")]
    assert wheels
    assert all(span for _, span in wheels)


def test_an_extra_brings_its_packages(index: Index, locks: Path) -> None:
    (locks / "small.in").write_text('requires = ["one[more]"]\n')
    lock.write_all()
    assert versions() == {"one": "1.0", "two": "1.0", "three": "1.0"}
    assert lockfile.read_set("small").wheels[0].needs == ("three", "two>=1")
    check.check()


def test_a_relock_that_finds_nothing_new_changes_no_byte(index: Index, locks: Path) -> None:
    lock.write_all()
    before = {file.name: file.read_bytes() for file in locks.iterdir()}
    index.add("two", "2.0", uploaded=OLD)
    old, new = lock.write_all()
    assert {file.name: file.read_bytes() for file in locks.iterdir()} == before
    assert changes.between(old, new) == ()


def contents(locks: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in locks.iterdir()}


def ask_for_toolkit(*requirements: str) -> None:
    (paths.ROOT / "pyproject.toml").write_text(
        f'[project]\nname = "x"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = {[*requirements]}\n'
        "[project.optional-dependencies]\ntest = []\n"
    )


def test_an_unedited_run_asks_no_index_and_changes_no_byte(index: Index, locks: Path) -> None:
    ask_for_toolkit("two")
    (locks / "other.in").write_text('requires = ["two"]\n[agrees]\nwith = "small"\n')
    lock.write_all()
    before = contents(locks)
    # Better files of the locked versions, which came later, and newer versions.
    index.add("one", "1.0", "two>=1", tag="cp311-abi3-manylinux_2_28_x86_64", uploaded=OLD)
    index.add("two", "1.0", tag="cp311-abi3-manylinux_2_28_x86_64", extras=["other-bytes"], uploaded=OLD)
    index.add("two", "2.0", uploaded=OLD)
    index.asked.clear()
    lock.write_all()
    assert contents(locks) == before
    assert index.asked == []


def test_a_name_of_one_lock_moves_no_other(index: Index, locks: Path) -> None:
    ask_for_toolkit("three")
    (locks / "other.in").write_text('requires = ["three"]\n')
    lock.write_all()
    before = contents(locks)
    for name in ("one", "two", "three"):
        index.add(name, "2.0", uploaded=OLD)
    lock.write_all("two")
    assert {name for name, data in contents(locks).items() if data != before[name]} == {"small.lock"}


def test_an_edited_set_keeps_the_files_of_the_versions_that_stay(index: Index, locks: Path) -> None:
    (locks / "other.in").write_text('requires = ["two"]\n[agrees]\nwith = "small"\n')
    lock.write_all()
    before = {wheel.name: wheel for wheel in lockfile.read_set("small").wheels}
    better = "cp311-abi3-manylinux_2_28_x86_64"
    index.add("two", "1.0", tag=better, extras=["other-bytes"], uploaded=OLD)
    (locks / "small.in").write_text('requires = ["one", "three"]\n')
    (locks / "other.in").write_text('requires = ["two", "three"]\n[agrees]\nwith = "small"\n')
    lock.write_all()
    after = {wheel.name: wheel for wheel in lockfile.read_set("small").wheels}
    assert {name: after[name] for name in before} == before
    assert set(after) == {*before, "three"}
    # Asked for by name it is chosen anew, in both.
    lock.write_all("two")
    assert [lockfile.read_set(name).wheels[-1].artifact.file for name in ("small", "other")] == [f"two-1.0-{better}.whl"] * 2


def test_an_edit_of_the_toolkit_moves_nothing_else_in_it(index: Index, locks: Path) -> None:
    ask_for_toolkit("two")
    lock.write_all()
    before = (locks / "toolkit.txt").read_text()
    index.add("two", "1.0", tag="cp311-abi3-manylinux_2_28_x86_64", extras=["other-bytes"], uploaded=OLD)
    index.add("two", "2.0", uploaded=OLD)
    ask_for_toolkit("three", "two")
    lock.write_all()
    kept = [line for line in before.splitlines() if not line.startswith("#")]
    assert "\n".join(kept) in (locks / "toolkit.txt").read_text()
    assert toolkit.versions() == {"two": "1.0", "three": "1.0"}


def test_pinning_a_model_touches_nothing_else(index: Index, locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock.write_all()
    before = contents(locks)
    index.add("two", "2.0", uploaded=OLD)
    index.asked.clear()
    monkeypatch.setenv("HF_HOME", str(locks.parent / "hf"))
    with hub_server.serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.push(steps.REPO, steps.DATA)
        (locks / "models.in").write_text(steps.ASKED)
        lock.write_all()
        assert {name for name, data in contents(locks).items() if data != before.get(name)} == {"models.in", "models.lock"}
        # A second one leaves the first where it is, though its branch moved.
        (pinned,) = models_lock.read_lock().models
        hub.push(steps.REPO, {**steps.DATA, "README.md": b"# new"})
        hub.push("acme/other", steps.DATA)
        (locks / "models.in").write_text(f'{steps.ASKED}[models.other]\nrepo = "acme/other"\nrevision = "main"\n')
        lock.write_all()
        assert pinned in models_lock.read_lock().models
    assert index.asked == []


def test_an_upgrade_moves_the_named_package_alone(index: Index) -> None:
    lock.write_all()
    index.add("one", "2.0", "two>=1", uploaded=OLD)
    index.add("two", "2.0", uploaded=OLD)
    old, new = lock.write_all("Two")
    assert versions() == {"one": "1.0", "two": "2.0"}
    (move,) = changes.between(old, new)
    assert (move.name, move.locks) == ("two", ("small",))


def test_an_upgrade_moves_what_must_move_with_it(index: Index) -> None:
    lock.write_all()
    index.add("one", "2.0", "two>=2", uploaded=OLD)
    index.add("two", "2.0", uploaded=OLD)
    index.add("two", "3.0", uploaded=OLD)
    lock.write_all("one")
    assert versions()["one"] == "2.0"
    # The old two stands in its way; which newer one comes is the resolver's choice.
    assert versions()["two"] in {"2.0", "3.0"}


def test_an_upgrade_of_all_moves_all(index: Index) -> None:
    lock.write_all()
    index.add("one", "2.0", "two>=1", uploaded=OLD)
    index.add("two", "2.0", uploaded=OLD)
    lock.write_all("all")
    assert versions() == {"one": "2.0", "two": "2.0"}


def test_a_brand_new_release_stays_out(index: Index) -> None:
    index.add("two", "2.0", uploaded=now())
    lock.write_all("all")
    assert versions()["two"] == "1.0"


def test_a_brand_new_release_comes_in_when_it_is_named(index: Index) -> None:
    lock.write_all()
    index.add("two", "2.0", uploaded=now())
    lock.write_all("two")
    assert versions()["two"] == "2.0"
    # And does not go back for its youth.
    lock.write_all()
    assert versions()["two"] == "2.0"


def test_a_brand_new_release_comes_in_when_an_input_pins_it(index: Index, locks: Path) -> None:
    index.add("two", "2.0", uploaded=now())
    (locks / "small.in").write_text('requires = ["one", "two==2.0"]\n')
    lock.write_all()
    assert versions()["two"] == "2.0"


def days_ago(days: float) -> str:
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    return then.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_fresh_relock_opens_no_door_for_young_releases(index: Index) -> None:
    lock.write_all()
    index.add("two", "2.0", uploaded=days_ago(1))
    index.add("two", "1.5", uploaded=days_ago(9))
    lock.write_all("all")
    assert versions()["two"] == "1.5"


def test_a_young_release_that_is_locked_moves_to_no_younger_one(index: Index) -> None:
    lock.write_all()
    index.add("two", "2.0", uploaded=days_ago(2))
    lock.write_all("two")
    index.add("two", "3.0", uploaded=days_ago(1))
    lock.write_all("all")
    assert versions()["two"] == "2.0"


def test_the_cooldown_is_whole_days(index: Index) -> None:
    index.add("two", "2.0", uploaded=days_ago(6.99))
    index.add("two", "1.9", uploaded=days_ago(7.01))
    lock.write_all()
    assert versions()["two"] == "1.9"


def test_a_range_asks_for_no_brand_new_release(index: Index, locks: Path) -> None:
    index.add("two", "2.0", uploaded=OLD)
    index.add("two", "2.1", uploaded=now())
    (locks / "small.in").write_text('requires = ["one", "two==2.*"]\n')
    lock.write_all()
    assert versions()["two"] == "2.0"


def test_what_one_set_pins_may_be_brand_new_in_the_set_that_agrees(index: Index, locks: Path) -> None:
    index.add("two", "2.0", uploaded=now())
    (locks / "small.in").write_text('requires = ["one", "two==2.0"]\n')
    (locks / "other.in").write_text('requires = ["two"]\n[agrees]\nwith = "small"\n')
    lock.write_all()
    assert versions("other") == {"two": "2.0"}


def test_a_damaged_lock_is_not_taken_for_none(index: Index, locks: Path) -> None:
    lock.write_all()
    index.add("two", "2.0", uploaded=OLD)
    file = locks / "small.lock"
    damaged = file.read_text().replace('"1.0"', '"1.1"', 1)
    file.write_text(damaged)
    with pytest.raises(LockError, match="edited by hand.*restore it from git, or remove it"):
        lock.write_all()
    assert file.read_text() == damaged
    file.unlink()
    lock.write_all()
    assert versions()["two"] == "2.0"


def test_a_lock_of_the_older_format_is_written_anew(index: Index, locks: Path) -> None:
    (locks / "small.lock").write_text("format = 1\n[wheels]\n")
    lock.write_all()
    assert versions() == {"one": "1.0", "two": "1.0"}


def test_no_code_of_a_source_runs_while_resolving(index: Index, locks: Path, tmp_path: Path) -> None:
    """uv would build the newer version on this machine, to ask what it needs."""
    ran = tmp_path / "ran"
    index.add_sdist("src", "1.0")
    index._uploaded |= {"src-1.0.tar.gz": OLD, "src-1.1.tar.gz": OLD}
    index.files["files/src-1.1.tar.gz"] = _source("src", "1.1", f"open({str(ran)!r}, 'w')")
    (locks / "small.in").write_text('requires = ["one", "src>=1.1"]\n[sdists.src]\nversion = "1.0"\nrequires = []\n')
    with pytest.raises(LockError, match="small.in does not resolve"):
        lock.write_all()
    assert not ran.exists()


def test_a_source_that_builds_another_version_leaves_every_lock_as_it_was(
    index: Index, locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written once and could be read no more: a backend that takes the version from git makes 0.0.0 of an sdist."""
    lock.write_all()
    before = (locks / "small.lock").read_bytes()
    index.files["files/src-2.0.0.tar.gz"] = _source("src", "2.0.0", "")
    index._uploaded |= {"src-2.0.0.tar.gz": OLD}
    (locks / "small.in").write_text('requires = ["one", "src"]\n[sdists.src]\nversion = "2.0.0"\nrequires = []\n')
    monkeypatch.setattr(resolver, "fetch", lambda _: None)
    monkeypatch.setattr(build, "workshop", _workshop("0.0.0"))
    with pytest.raises(BuildError, match=r"src-2.0.0.tar.gz builds src 0.0.0, and not src 2.0.0"):
        lock.write_all()
    assert (locks / "small.lock").read_bytes() == before
    monkeypatch.setattr(build, "workshop", _workshop("2.0.0"))
    lock.write_all()
    locked = next(wheel for wheel in lockfile.read_set("small").wheels if wheel.name == "src")
    assert (locked.version, locked.build, locked.reproducible) == ("2.0.0", (), True)
    again = (locks / "small.lock").read_bytes()
    lock.write_all()
    assert (locks / "small.lock").read_bytes() == again


class _Shop:
    """A workshop that makes a wheel of one version, whatever it is given."""

    def __init__(self, sdist: Artifact, version: str) -> None:
        self.sdist, self._version = sdist, version

    def read(self, step: str) -> object:
        return []

    def build(self, target: Path) -> Path:
        file = target / f"src-{self._version}-py3-none-any.whl"
        file.write_bytes(small_wheel("src", self._version))
        return file


def _workshop(version: str) -> Callable[..., Iterator[_Shop]]:
    @contextmanager
    def workshop(base: object, sdist: Artifact, needs: object) -> Iterator[_Shop]:
        yield _Shop(sdist, version)

    return workshop  # type: ignore[return-value]


def test_an_older_lock_of_a_source_is_made_anew_and_nothing_moves(
    index: Index, locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.files["files/src-2.0.0.tar.gz"] = _source("src", "2.0.0", "")
    index._uploaded |= {"src-2.0.0.tar.gz": OLD}
    (locks / "small.in").write_text('requires = ["one", "src"]\n[sdists.src]\nversion = "2.0.0"\nrequires = []\n')
    monkeypatch.setattr(resolver, "fetch", lambda _: None)
    monkeypatch.setattr(build, "workshop", _workshop("2.0.0"))
    lock.write_all()
    new = lockfile.read_set("small")
    lockfile.write_set(replace(new, wheels=tuple(replace(wheel, build=None) for wheel in new.wheels)))
    lock.write_all()
    assert lockfile.read_set("small") == new


def _source(name: str, version: str, code: str) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for file, text in (
            # A backend of its own: nothing has to be fetched to run it.
            ("pyproject.toml", '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n'),
            ("own.py", f"{code}\n"),
            ("PKG-INFO", f"Metadata-Version: 1.0\nName: {name}\nVersion: {version}\n"),
        ):
            entry = tarfile.TarInfo(f"{name}-{version}/{file}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return held.getvalue()


def test_a_set_that_asks_for_nothing_is_refused(index: Index, locks: Path) -> None:
    (locks / "small.in").write_text("requires = [\"one ; sys_platform == 'win32'\"]\n")
    with pytest.raises(LockError, match="small.in asks for nothing on the image's platform"):
        lock.write_all()
    assert not (locks / "small.lock").exists()


@pytest.mark.parametrize(
    ("requires", "overrides", "expected"),
    [
        ("one", "two ; sys_platform == 'never'", {"one"}),
        ("one", "two==1.0 ; sys_platform == 'linux'\", \"two==9 ; sys_platform == 'win32'", {"one", "two"}),
        ("one", "one[more]==1.0", {"one", "two", "three"}),
        ("one[more]", "one==1.0", {"one", "two"}),
    ],
    ids=["dropped", "by_platform", "with_an_extra", "without_the_extra"],
)
def test_overrides_count_as_uv_counts_them(
    index: Index, locks: Path, requires: str, overrides: str, expected: set[str]
) -> None:
    (locks / "small.in").write_text(f'requires = ["{requires}"]\noverrides = ["{overrides}"]\n')
    lock.write_all()
    assert set(versions()) == expected
    check.check()


@pytest.mark.parametrize("status", [401, 403, 407])
def test_an_index_that_refuses_is_no_conflict(index: Index, status: int) -> None:
    index.wrong["simple/one/"] = [status] * 20
    with pytest.raises(MissingEnvironmentError, match="asks for a login|may not read it|does not answer for one: HTTP 407"):
        lock.write_all()


def test_offline_an_empty_machine_is_no_conflict(index: Index, locks: Path) -> None:
    with offline.forced(wanted=True), pytest.raises(MissingEnvironmentError, match="invoke fetch"):
        lock.write_all()


def test_an_index_that_tells_no_upload_times_gets_a_warning_and_no_cooldown(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in [path for path in index.files if "one" in path or "two" in path]:
        del index.files[path]
    index._uploaded.clear()
    index.add("one", "1.0", "two")
    index.add("two", "2.0")
    lock.write_all()
    assert versions()["two"] == "2.0"
    assert "the cooldown of 7 days cannot be kept" in " ".join("".join(capsys.readouterr()).split())


@pytest.mark.parametrize("ranges", [True, False])
def test_an_index_of_plain_pages_serves_too(index: Index, ranges: bool) -> None:
    # As Python's own http.server, which serves no parts of files either.
    index.html, index.ranges = True, ranges
    lock.write_all()
    sizes = {wheel.artifact.file: wheel.artifact.size for wheel in lockfile.read_set("small").wheels}
    assert sizes == {file: len(index.files[f"files/{file}"]) for file in sizes}
    assert len(sizes) == 2


def test_a_set_follows_the_one_it_agrees_with(index: Index, locks: Path) -> None:
    index.add("two", "2.0", uploaded=OLD)
    (locks / "small.in").write_text('requires = ["one", "two<2"]\n')
    # Named so that it would be resolved first.
    (locks / "other.in").write_text('requires = ["two"]\n[agrees]\nwith = "small"\n')
    lock.write_all()
    assert versions("other") == {"two": "1.0"}


def test_sets_that_cannot_agree_are_refused_and_nothing_is_written(index: Index, locks: Path) -> None:
    lock.write_all()
    before = {file.name: file.read_bytes() for file in locks.glob("*.lock")}
    index.add("two", "2.0", uploaded=OLD)
    (locks / "other.in").write_text('requires = ["two>=2"]\n[agrees]\nwith = "small"\n')
    with pytest.raises(
        LockError, match=r"has two 2.0, small.lock has 1.0, and other.in needs two>=2 .*--upgrade two.*agrees.except"
    ):
        lock.write_all()
    assert {file.name: file.read_bytes() for file in locks.glob("*.lock")} == before


def test_an_exception_that_is_needed_no_more_is_said(index: Index, locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (locks / "other.in").write_text('requires = ["two"]\n[agrees]\nwith = "small"\n[agrees.except]\ntwo = "was so once"\n')
    lock.write_all()
    assert "other and small agree on two: drop it" in " ".join("".join(capsys.readouterr()).split())


def test_sets_that_agree_in_a_circle_are_refused(index: Index, locks: Path) -> None:
    (locks / "small.in").write_text('requires = ["one"]\n[agrees]\nwith = "other"\n')
    (locks / "other.in").write_text('requires = ["two"]\n[agrees]\nwith = "small"\n')
    with pytest.raises(UsageError, match="agrees with itself in a circle"):
        lock.write_all()


def test_a_set_that_does_not_resolve_leaves_every_lock_as_it_was(index: Index, locks: Path) -> None:
    lock.write_all()
    before = {file.name: file.read_bytes() for file in locks.glob("*.lock")}
    index.add("two", "2.0", uploaded=OLD)
    (locks / "small.in").write_text('requires = ["one", "two==9"]\n')
    with pytest.raises(LockError, match="small.in does not resolve"):
        lock.write_all("all")
    assert {file.name: file.read_bytes() for file in locks.glob("*.lock")} == before


def test_a_forbidden_licence_fails_the_lock(index: Index, locks: Path) -> None:
    index.files["files/two-1.0-py3-none-any.whl"] = _with_licence("two", "1.0", "AGPL-3.0-only")
    with pytest.raises(LockError, match="two 1.0.*AGPL-3.0-only"):
        lock.write_all()
    assert not (locks / "small.lock").exists()


def _with_licence(name: str, version: str, licence: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        text = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense-Expression: {licence}\n"
        archive.writestr(f"{name}-{version}.dist-info/METADATA", text)
        archive.writestr(f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    return held.getvalue()


def test_an_unknown_name_is_not_upgraded(index: Index) -> None:
    with pytest.raises(UsageError, match="no lock holds seventeen"):
        lock.write_all("seventeen")


def test_offline_a_relock_works_from_the_store(index: Index, locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.add("two", "2.0", uploaded=OLD)
    (locks / "small.in").write_text('requires = ["one", "two==1.0"]\n')
    lock.write_all()
    _stock(monkeypatch)
    index.asked.clear()
    with offline.forced(wanted=True):
        (locks / "small.in").write_text('requires = ["one", "two<2"]\n')
        lock.write_all()
        assert versions() == {"one": "1.0", "two": "1.0"}
        (locks / "small.in").write_text('requires = ["one", "two==2.0"]\n')
        with pytest.raises(LockError, match="small.in does not resolve"):
            lock.write_all()
    assert index.asked == []


def test_offline_a_shim_is_not_taken_for_the_package(index: Index, locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (locks / "other.in").write_text('requires = ["two"]\n[shims]\none = "1.0+shim"\n')
    lock.write_all()
    _stock(monkeypatch, "small", "other")
    with offline.forced(wanted=True):
        (locks / "small.in").write_text('requires = ["one==1.0"]\n')
        lock.write_all()
    assert versions()["one"] == "1.0"


def _stock(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Put the sets' wheels into the store; the made-up debs cannot be had."""
    monkeypatch.setattr("lockfiles.debian.resolver.fetch", lambda _: None)
    fetching.fetch(names or ["small"])


def test_offline_a_changed_base_needs_the_mirror(locks: Path) -> None:
    (locks / "base.in").write_text('packages = ["python3.11", "gcc"]\n')
    with offline.forced(wanted=True), pytest.raises(MissingEnvironmentError, match="base.in changed, and resolving it needs"):
        lock._resolve_base(lockfile.read_base(), "")


def test_an_unedited_base_stays_and_newer_debs_are_counted(
    locks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = lockfile.read_base()
    monkeypatch.setattr(resolver, "resolve", lambda *_: pytest.fail("the base was resolved"))
    for newer, expected in (
        (6, "6 newer Debian packages are there: `invoke lock --upgrade debian` takes them"),
        (1, "1 newer Debian package is there: `invoke lock --upgrade debian` takes it"),
        (0, ""),
    ):
        monkeypatch.setattr(resolver, "newer", lambda _, debs, count=newer: count if debs == base.debs else 99)
        assert lock._resolve_base(base, "one") is base
        assert " ".join("".join(capsys.readouterr()).split()) == expected

    def unreachable(*_: object) -> int:
        raise MissingEnvironmentError("no answer", fix="check the network")

    monkeypatch.setattr(resolver, "newer", unreachable)
    assert lock._resolve_base(base, "") is base
    shown = " ".join("".join(capsys.readouterr()).split())
    assert "whether there are newer Debian packages is not known: no answer: check the network" in shown
    with offline.forced(wanted=True):
        for upgrade in ("", "all"):
            assert lock._resolve_base(base, upgrade) is base
    assert "".join(capsys.readouterr()) == ""


@pytest.mark.parametrize(
    ("upgrade", "kept"),
    [("", True), ("one", True), ("libc6", True), ("python3.11", True), ("debian", False), ("all", False)],
)
def test_what_an_upgrade_asks_of_the_base(
    locks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], upgrade: str, kept: bool
) -> None:
    base = lockfile.read_base()
    if upgrade in {"", "one"}:
        (locks / "base.in").write_text('packages = ["libc6", "python3.11"]\n')
    resolve = mock.Mock(return_value=(base.debs, 1))
    monkeypatch.setattr(resolver, "resolve", resolve)
    monkeypatch.setattr(resolver, "fetch", lambda _: None)
    monkeypatch.setattr(licences, "of_debs", lambda paths: dict.fromkeys(paths, "ISC"))
    monkeypatch.setattr("lockfiles.store.verified", lambda artifact: Path(artifact.file))
    resolved = lock._resolve_base(base, upgrade)
    resolve.assert_called_once_with(
        inputs.read_base(), base.debs if kept else (), frozenset({upgrade} & {"libc6", "python3.11"})
    )
    assert "1 newer Debian package is there" in " ".join("".join(capsys.readouterr()).split())
    assert resolved.inputs == inputs.read_base().digest
    assert {deb.licence for deb in resolved.debs} == ({"ISC"} if upgrade == "all" else {deb.licence for deb in base.debs})


def test_debian_names_are_known_to_upgrade(index: Index) -> None:
    lock.write_all()
    before = lockfile.read_set("small")
    for name in ("libc6", "debian"):
        lock.write_all(name)
    assert lockfile.read_set("small") == before
    with pytest.raises(UsageError, match="no lock holds libc7 .*: name a locked package or model, `debian` for all Debian"):
        lock.write_all("libc7")


@pytest.mark.parametrize("name", ["libc6", "debian"])
def test_offline_no_deb_is_upgraded(locks: Path, name: str) -> None:
    with offline.forced(wanted=True), pytest.raises(MissingEnvironmentError, match=f"upgrading {name} needs Debian's mirror"):
        lock._resolve_base(lockfile.read_base(), name)


def test_only_what_moved_is_told(locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import replace

    from tests.lockfiles.conftest import artifact

    before = changes.read()
    small = before.sets["small"]
    bumped = replace(small.wheels[1], version="2.1", artifact=artifact("two-2.1-py3-none-any.whl", b"x" * 99), licence="ISC")
    fresh = SetLock("fresh", inputs.read_set("small").digest, "2026-01-02", "3.11.2", "2.36", small.wheels)
    after = replace(before, sets={"small": replace(small, wheels=(small.wheels[0], bumped)), "fresh": fresh})
    assert changes.show(before, after) == "1 package moved; fresh new"
    said = " ".join("".join(capsys.readouterr()).split())
    assert "two 2.0 2.1 +75 B MIT → ISC small" in said
    assert "small: licences + ISC" in said
    assert "fresh: new, 2 packages" in said
    assert changes.show(before, before) == "nothing moved"


def test_a_lock_that_is_not_there_yet_moved_nothing(locks: Path) -> None:
    after = changes.read()
    before = changes.Locked(None, {})
    assert changes.between(before, after) == ()
    assert isinstance(after.base, BaseLock)
