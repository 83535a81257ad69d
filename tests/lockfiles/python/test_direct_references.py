"""Packages from no index: a file at an address, a commit, a wheel or a folder of this machine. Locked by content alone."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import offline, paths
from common.errors import LockError, MissingEnvironmentError, UsageError
from lockfiles import check, explain, fetching, inputs, lock, lockfile, sbom, store
from lockfiles.model import Artifact, Wheel
from lockfiles.python import index as index_
from lockfiles.python import source_archive
from lockfiles.python.source_archive import Entry
from registry import provenance
from tests.lockfiles.conftest import OLD, built, versions
from tests.lockfiles.small_index import Index, wheel

pytestmark = pytest.mark.slow

FORK = "fork-2.0-py3-none-any.whl"
DESCRIBED = '[sdists.fork]\nversion = "2.0"\nrequires = ["two"]\n'


def ask(locks: Path, *requires: str, more: str = "") -> None:
    (locks / "small.in").write_text(f"requires = {json.dumps(requires)}\n{more}")


def locked(name: str = "fork") -> Wheel:
    (found,) = [one for one in lockfile.read_set("small").wheels if one.name == name]
    return found


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join("".join(capsys.readouterr()).split())


def git(folder: Path, *argv: str) -> str:
    own = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", "-C", str(folder), *own, *argv], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def at_address(index: Index, locks: Path) -> tuple[str, str]:
    """A wheel `fork` 2.0 that needs `two`, at an address beside no index; address and sha256."""
    data = wheel("fork", "2.0", ["two"])
    index.files[f"elsewhere/{FORK}"] = data
    return index.url(f"elsewhere/{FORK}"), hashlib.sha256(data).hexdigest()


@pytest.fixture
def builds(index: Index, monkeypatch: pytest.MonkeyPatch) -> list[Artifact]:
    """The sources that were built; what a build gives is a wheel of what the input states."""
    index.add("setuptools", "80.0", uploaded=OLD)
    return built(monkeypatch)


@pytest.fixture
def repository(tmp_path: Path) -> tuple[str, str]:
    """A git repository with one commit; address and commit."""
    folder = tmp_path / "fork.git"
    (folder / "python/src").mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "fork"\n')
    (folder / "python/src/run.sh").write_text("#!/bin/sh\n")
    (folder / "python/src/run.sh").chmod(0o755)
    git(folder, "init", "--quiet")
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", "one")
    git(folder, "tag", "v1")
    return f"git+file://{folder}", git(folder, "rev-parse", "HEAD")


def test_a_wheel_at_an_address_is_locked_by_its_content(index: Index, locks: Path, at_address: tuple[str, str]) -> None:
    address, sha256 = at_address
    # A public namesake, newer, that somebody else needs as well.
    index.add("fork", "9.0", uploaded=OLD)
    index.add("user", "1.0", "fork>=2", uploaded=OLD)
    ask(locks, f"fork @ {address}#sha256={sha256}", "user")
    lock.write_all()
    assert versions() == {"fork": "2.0", "two": "1.0", "user": "1.0"}
    assert locked().artifact == Artifact(FORK, len(index.files[f"elsewhere/{FORK}"]), sha256)
    assert locked().needs == ("two",)
    assert "127.0.0.1" not in (locks / "small.lock").read_text()
    assert not any(path == "simple/fork/" for path, _ in index.asked)
    check.check()


def test_a_fetch_takes_it_from_its_address_and_a_mirror_holds_it(
    index: Index, locks: Path, at_address: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, sha256 = at_address
    monkeypatch.setattr("lockfiles.debian.resolver.fetch", lambda _: None)
    ask(locks, f"fork @ {address}#sha256={sha256}")
    lock.write_all()
    shutil.rmtree(paths.cache())
    fetching.fetch(["small"])
    assert store.has(locked().artifact)
    monkeypatch.setattr(fetching, "_toolkit", lambda: ())
    monkeypatch.setattr(fetching, "artifacts", lambda _: tuple(one.artifact for one in lockfile.read_set("small").wheels))
    fetching.write_mirror(["small"], tmp_path / "mirror")
    shutil.rmtree(paths.cache())
    monkeypatch.setenv("PINWHEEL_MIRROR", str(tmp_path / "mirror"))
    index.asked.clear()
    with offline.forced(wanted=True):
        fetching.fetch(["small"])
        ask(locks, f"fork @ {address}#sha256={sha256}", "two==1.0")
        lock.write_all()
    assert index.asked == []


def test_other_bytes_at_the_address_are_refused(index: Index, locks: Path, at_address: tuple[str, str]) -> None:
    address, sha256 = at_address
    index.files[f"elsewhere/{FORK}"] = wheel("fork", "2.0", ["evil"])
    ask(locks, f"fork @ {address}#sha256={sha256}")
    with pytest.raises(LockError, match="the address serves another file than the input names|more bytes than"):
        lock.write_all()
    assert not (locks / "small.lock").exists()


def test_a_new_hash_at_the_same_address_is_taken_because_the_input_says_so(
    index: Index, locks: Path, at_address: tuple[str, str]
) -> None:
    address, sha256 = at_address
    ask(locks, f"fork @ {address}#sha256={sha256}")
    lock.write_all()
    data = wheel("fork", "2.0", [])
    index.files[f"elsewhere/{FORK}"] = data
    ask(locks, f"fork @ {address}#sha256={hashlib.sha256(data).hexdigest()}")
    lock.write_all()
    assert versions() == {"fork": "2.0"}


ADDRESS = "https://files.example.com/fork-2.0-py3-none-any.whl"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        (f"fork @ {ADDRESS}", "its address names no content .*: end it in #sha256="),
        (f"fork @ {ADDRESS}#sha256=12", "its address names no content"),
        (f"fork @ {ADDRESS}#md5=12", "its address names no content"),
        ("fork @ https://files.example.com/fork.exe#sha256=" + "0" * 64, "not a wheel or a source archive: 'fork.exe'"),
        ("fork @ https://me:secret@files.example.com/a.whl#sha256=" + "0" * 64, "its address holds a login .*netrc"),
        (f"fork @ git+https://token@git.example.com/fork@{COMMIT}", "its address holds a login .*credential helper"),
        (
            "fork @ git+https://git.example.com/team/fork@main",
            "main is no commit .*git ls-remote https://git.example.com/team/fork main",
        ),
        ("fork @ git+https://git.example.com/team/fork@v1.2", "v1.2 is no commit"),
        ("fork @ git+https://git.example.com/team/fork@0123456", "0123456 is no commit .*`git rev-parse 0123456` in a clone"),
        (
            f"fork @ git+https://git.example.com/fork@{COMMIT.upper()}",
            "is no commit .*in lower case: `git rev-parse 0123",
        ),
        (f"fork @ git@git.example.com:team/fork@{COMMIT}", r"git repository, as PEP 508 .*git\+ssh://git@HOST/PATH@COMMIT"),
        (f"fork @ git://git.example.com/fork@{COMMIT}", r"git repository, as PEP 508 .*git\+https://HOST/PATH@COMMIT"),
        (f"fork @ ssh://git@git.example.com/fork@{COMMIT}", "holds a login|as PEP 508"),
        ("fork @ git+https://git.example.com/team/fork", "its address names no commit .*fork HEAD"),
        ("fork @ git+ssh://git@git.example.com/team/fork", "its address names no commit"),
        (f"fork @ git+https://git.example.com/fork@{COMMIT}#egg=fork", "unknown after #: 'egg=fork'"),
        (f"fork @ git+https://git.example.com/fork@{COMMIT}#subdirectory=../x", "unknown after #"),
        ("fork @ file:///home/me/fork.whl", r"not an address .*\[sources\] fork = \{ path ="),
        ("fork @ ftp://files.example.com/fork.whl", "not an address of a file or a git repository: ftp"),
    ],
)
def test_an_address_that_names_no_content_is_refused_with_what_to_write(locks: Path, requirement: str, expected: str) -> None:
    ask(locks, requirement)
    with pytest.raises(UsageError, match=expected) as refused:
        inputs.read_set("small")
    assert "secret" not in refused.value.line()
    assert "small.in:1" in refused.value.where


def test_an_override_holds_no_address(locks: Path) -> None:
    ask(locks, "one", more=f'overrides = ["fork @ {ADDRESS}#sha256={"0" * 64}"]\n')
    with pytest.raises(UsageError, match="an address where only a version may stand"):
        inputs.read_set("small")


def test_an_override_of_such_a_package_leaves_it_where_it_is(index: Index, locks: Path, at_address: tuple[str, str]) -> None:
    index.add("fork", "9.0", uploaded=OLD)
    index.add("user", "1.0", "fork<1", uploaded=OLD)
    ask(locks, f"fork @ {at_address[0]}#sha256={at_address[1]}", "user", more='overrides = ["fork==2.0"]\n')
    lock.write_all()
    assert versions()["fork"] == "2.0"
    check.check()


def test_a_commit_is_locked_by_commit_tree_and_the_bytes_of_its_files(
    index: Index, locks: Path, builds: list[Artifact], repository: tuple[str, str], tmp_path: Path
) -> None:
    address, commit = repository
    ask(locks, f"fork @ {address}@{commit}", "setuptools", more=DESCRIBED)
    lock.write_all()
    first = locked()
    assert (first.version, first.commit, first.needs) == ("2.0", commit, ("two",))
    assert first.tree == git(tmp_path / "fork.git", "rev-parse", "HEAD^{tree}")
    assert first.sdist is not None
    assert first.sdist == builds[-1]
    with tarfile.open(store.verified(first.sdist)) as archive:
        modes = {member.name: member.mode for member in archive}
    assert modes == {"fork-2.0/PKG-INFO": 0o644, "fork-2.0/pyproject.toml": 0o644, "fork-2.0/python/src/run.sh": 0o755}
    check.check()
    assert str(tmp_path) not in (locks / "small.lock").read_text()
    # On another machine, with other settings of git, from the repository again: the same bytes.
    (tmp_path / "gitconfig").write_text("[tar]\n\tumask = 0077\n[core]\n\tautocrlf = true\n")
    before = store.verified(first.sdist).read_bytes()
    shutil.rmtree(paths.cache())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
        fetching.download([lockfile.read_set("small")], [first.sdist], index_.session())
    assert store.verified(first.sdist).read_bytes() == before


def test_a_folder_of_a_repository_is_taken_alone(
    index: Index, locks: Path, builds: list[Artifact], repository: tuple[str, str]
) -> None:
    address, commit = repository
    ask(locks, f"fork @ {address}@{commit}#subdirectory=python", "setuptools", more=DESCRIBED)
    lock.write_all()
    with tarfile.open(store.verified(builds[-1])) as archive:
        assert archive.getnames() == ["fork-2.0/PKG-INFO", "fork-2.0/src/run.sh"]
    ask(locks, f"fork @ {address}@{commit}#subdirectory=none", "setuptools", more=DESCRIBED)
    with pytest.raises(LockError, match="has no folder 'none'"):
        lock.write_all()


def test_a_commit_that_is_not_there_and_a_repository_that_is_not_there_are_told_apart(
    index: Index, locks: Path, builds: list[Artifact], repository: tuple[str, str]
) -> None:
    ask(locks, f"fork @ {repository[0]}@{'0' * 40}", "setuptools", more=DESCRIBED)
    with pytest.raises(LockError, match="has no commit 0000"):
        lock.write_all()
    ask(locks, f"fork @ {repository[0]}-gone@{repository[1]}", "setuptools", more=DESCRIBED)
    with pytest.raises(MissingEnvironmentError, match="git cannot fetch .*: fatal: "):
        lock.write_all()
    assert builds == []


def test_a_tag_that_holds_a_message_is_no_commit_and_its_commit_is_named(
    index: Index, locks: Path, builds: list[Artifact], repository: tuple[str, str], tmp_path: Path
) -> None:
    # The first line that `git ls-remote` tells of such a tag.
    git(tmp_path / "fork.git", "tag", "--annotate", "v2", "-m", "one")
    tag = git(tmp_path / "fork.git", "rev-parse", "v2")
    ask(locks, f"fork @ {repository[0]}@{tag}", "setuptools", more=DESCRIBED)
    with pytest.raises(LockError, match=f"{tag} of .* is a tag, and no commit: name its commit: {repository[1]}"):
        lock.write_all()


def test_what_a_repository_leaves_out_of_its_archives_is_not_left_out_here(
    index: Index, locks: Path, builds: list[Artifact], repository: tuple[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "fork.git"
    (folder / ".gitattributes").write_text("data.txt export-ignore\n*.py export-subst\n")
    (folder / "data.txt").write_text("1")
    (folder / "version.py").write_text("$Format:%H$")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "two")
    ask(locks, f"fork @ {repository[0]}@{git(folder, 'rev-parse', 'HEAD')}", "setuptools", more=DESCRIBED)
    lock.write_all()
    with tarfile.open(store.verified(builds[-1])) as archive:
        assert "fork-2.0/data.txt" in archive.getnames()
        held = archive.extractfile("fork-2.0/version.py")
        assert held is not None
        assert held.read() == b"$Format:%H$"


def test_a_submodule_is_refused_for_the_commit_does_not_hold_it(
    index: Index, locks: Path, builds: list[Artifact], repository: tuple[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "fork.git"
    git(folder, "update-index", "--add", "--cacheinfo", f"160000,{repository[1]},third")
    git(folder, "commit", "--quiet", "-m", "two")
    ask(locks, f"fork @ {repository[0]}@{git(folder, 'rev-parse', 'HEAD')}", "setuptools", more=DESCRIBED)
    with pytest.raises(LockError, match="'third' of .* is a submodule, which the commit does not hold"):
        lock.write_all()


def test_a_source_that_the_input_does_not_describe_is_refused_with_what_to_write(
    index: Index, locks: Path, builds: list[Artifact], repository: tuple[str, str]
) -> None:
    ask(locks, f"fork @ {repository[0]}@{repository[1]}")
    with pytest.raises(LockError, match=r"fork comes as source .*small.in.*\[sdists.fork\] version = "):
        lock.write_all()


def test_a_wheel_of_this_machine_stays_as_it_was_locked_until_it_is_asked_for(
    index: Index, locks: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockfiles.debian.resolver.fetch", lambda _: None)
    place = paths.ROOT / "wheels" / FORK
    place.parent.mkdir()
    place.write_bytes(wheel("fork", "2.0", ["two"]))
    ask(locks, "fork==2.0", more=f'[sources]\nfork = {{ path = "wheels/{FORK}" }}\n')
    index.add("fork", "2.0", uploaded=OLD)
    lock.write_all()
    first = locked()
    assert first.artifact.sha256 == hashlib.sha256(place.read_bytes()).hexdigest()
    check.check()
    place.write_bytes(wheel("fork", "2.0", []))
    ask(locks, "fork==2.0", "three", more=f'[sources]\nfork = {{ path = "wheels/{FORK}" }}\n')
    lock.write_all()
    assert locked() == first
    assert f"wheels/{FORK} changed since it was locked; it stays: `invoke lock --upgrade fork` takes it" in said(capsys)
    lock.write_all("fork")
    assert locked().needs == ()
    # The folder need be on one machine only.
    place.unlink()
    ask(locks, "fork==2.0", more=f'[sources]\nfork = {{ path = "wheels/{FORK}" }}\n')
    lock.write_all()
    assert locked().needs == ()
    store.path(locked().artifact).unlink()
    with pytest.raises(MissingEnvironmentError, match="fork: wheels/fork.* is not there"):
        fetching.fetch(["small"])


@pytest.mark.parametrize(
    ("file", "requirement", "expected"),
    [
        ("other-2.0-py3-none-any.whl", "fork", "is a wheel of other, not of fork"),
        ("fork.whl", "fork", "not the name of a wheel: fork.whl"),
        (FORK, "fork==3", "fork 2.0 is at .*the input asks for ==3"),
        ("fork-2.0-cp312-cp312-win_amd64.whl", "fork", "does not run on the base"),
        ("fork.txt", "fork", r"comes as source|no wheel, source archive or folder"),
    ],
)
def test_a_file_that_is_not_what_was_asked_for_is_refused(
    index: Index, locks: Path, file: str, requirement: str, expected: str
) -> None:
    (paths.ROOT / file).write_bytes(wheel("fork", "2.0"))
    ask(locks, requirement, more=f'[sources]\nfork = {{ path = "{file}" }}\n')
    with pytest.raises(LockError, match=expected):
        lock.write_all()


def test_a_wheel_that_is_described_as_source_is_refused_with_what_to_drop(
    index: Index, locks: Path, builds: list[Artifact]
) -> None:
    (paths.ROOT / FORK).write_bytes(wheel("fork", "2.0"))
    ask(locks, "fork", more=f'[sources]\nfork = {{ path = "{FORK}" }}\n{DESCRIBED}')
    with pytest.raises(LockError, match=r"fork 2.0 has no source archive, only wheels \(.*small.in\): drop \[sdists.fork\]"):
        lock.write_all()
    # One of an index, too.
    ask(locks, "one", more='[sdists.one]\nversion = "1.0"\nrequires = []\n')
    with pytest.raises(LockError, match=r"one has no source archive, only wheels: drop \[sdists.one\]"):
        lock.write_all()


def test_a_folder_that_is_named_like_a_wheel_is_a_folder(index: Index, locks: Path) -> None:
    (paths.ROOT / FORK).mkdir()
    ask(locks, "fork", more=f'[sources]\nfork = {{ path = "{FORK}" }}\n')
    with pytest.raises(LockError, match="fork comes as source .*does not describe it"):
        lock.write_all()


@pytest.mark.parametrize("in_git", [True, False])
def test_a_folder_is_locked_as_it_is_and_stays_until_it_is_asked_for(
    index: Index, locks: Path, builds: list[Artifact], tmp_path: Path, capsys: pytest.CaptureFixture[str], in_git: bool
) -> None:
    folder = tmp_path / "fork"
    (folder / "__pycache__").mkdir(parents=True)
    for name in ("pyproject.toml", "__pycache__/x.pyc", ".env"):
        (folder / name).write_text(name)
    if in_git:
        (folder / ".gitignore").write_text(".env\n__pycache__\n")
        git(folder, "init", "--quiet")
    taken = f'[sources]\nfork = {{ path = "{folder}" }}\n{DESCRIBED}'
    ask(locks, "fork", "setuptools", more=taken)
    lock.write_all()
    first = locked()
    with tarfile.open(store.verified(builds[-1])) as archive:
        inside = {name.removeprefix("fork-2.0/") for name in archive.getnames()}
    assert inside == {"PKG-INFO", "pyproject.toml"} | ({".gitignore"} if in_git else set())
    (folder / "new.py").write_text("x = 1\n")
    ask(locks, "fork", "setuptools", "three", more=taken)
    lock.write_all()
    assert locked() == first
    assert "changed since it was locked; it stays" in said(capsys)
    lock.write_all("fork")
    assert locked().sdist != first.sdist


def test_a_source_archive_at_an_address_is_built(index: Index, locks: Path, builds: list[Artifact]) -> None:
    file, data = source_archive.pack("fork", "2.0", [Entry("setup.py", b"")])
    index.files["elsewhere/v2.0.tar.gz"] = data
    address = f"{index.url('elsewhere/v2.0.tar.gz')}#sha256={hashlib.sha256(data).hexdigest()}"
    ask(locks, f"fork @ {address}", "setuptools", more=DESCRIBED)
    lock.write_all()
    assert builds[-1] == Artifact(file, len(data), hashlib.sha256(data).hexdigest())
    check.check()


def test_an_address_that_refuses_is_said_as_such(index: Index, locks: Path, at_address: tuple[str, str]) -> None:
    index.wrong[f"elsewhere/{FORK}"] = [403] * 9
    ask(locks, f"fork @ {at_address[0]}#sha256={at_address[1]}")
    with pytest.raises(MissingEnvironmentError, match="fork cannot be fetched: the server answers 403.*netrc"):
        lock.write_all()


def test_explain_knows_what_comes_from_no_index(
    index: Index, locks: Path, at_address: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    index.add("fork", "9.0", uploaded=OLD)
    index.add("two", "2.0", uploaded=OLD)
    index.files[f"elsewhere/{FORK}"] = data = wheel("fork", "2.0", ["two<2"])
    text = f"fork @ {at_address[0]}#sha256={hashlib.sha256(data).hexdigest()}"
    ask(locks, text, "two==2.0")
    with pytest.raises(LockError, match="small.in does not resolve"):
        explain.explain("small")
    told = said(capsys)
    assert "two: no version satisfies both small.in needs ==2.0 fork 2.0 needs <2" in told
    assert '"two==1.0"' in told
    ask(locks, text, "two==1.0")
    assert explain.explain("small") == "small: resolves"
    lock.write_all()
    explain.explain("fork")
    assert "it comes from no index: http://" in said(capsys)
    assert not any(path == "simple/fork/" for path, _ in index.asked)


def test_provenance_names_the_commit_and_its_tree() -> None:
    ancestor = {"purl": "pkg:pypi/fork@2.0?file_name=x", "hashes": [{"alg": "SHA-256", "content": "ab"}]}
    ancestor["properties"] = [{"name": "pinwheel:commit", "value": COMMIT}, {"name": "pinwheel:tree", "value": COMMIT[::-1]}]
    component = {"purl": "pkg:pypi/fork@2.0", "hashes": ancestor["hashes"], "pedigree": {"ancestors": [ancestor]}}
    _, source = provenance._packages({"components": [component]})
    assert source == {"uri": ancestor["purl"], "digest": {"sha256": "ab", "gitCommit": COMMIT, "gitTree": COMMIT[::-1]}}


def test_sbom_and_lock_name_the_commit(index: Index, locks: Path, builds: list[Artifact], repository: tuple[str, str]) -> None:
    ask(locks, f"fork @ {repository[0]}@{repository[1]}", "setuptools", more=DESCRIBED)
    lock.write_all()
    made = json.loads(sbom.make(name="x", version="1", base=lockfile.read_base(), lock=lockfile.read_set("small"), files={}))
    (fork,) = [one for one in made["components"] if one["name"] == "fork"]
    told = {part["name"]: part["value"] for part in fork["pedigree"]["ancestors"][0]["properties"]}
    assert told["pinwheel:commit"] == repository[1]
    assert told["pinwheel:tree"] == locked().tree
    lock_ = lockfile.read_set("small")
    text = (locks / "small.lock").read_text()
    (locks / "small.lock").write_text(text.replace(repository[1], "f" * 40))
    with pytest.raises(LockError, match="fork: edited by hand"):
        check.check()
    lockfile.write_set(replace(lock_, wheels=tuple(replace(w, commit="f" * 40) if w.commit else w for w in lock_.wheels)))
    with pytest.raises(LockError, match="fork is locked by another content than small.in names"):
        check.check()


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,9}(/[a-z]{1,9}){0,2}\.py", fullmatch=True), st.binary(max_size=70_000), max_size=5)
)
def test_a_packed_tree_is_a_sound_archive_whose_bytes_follow_from_its_files(files: dict[str, bytes]) -> None:
    entries = [Entry(path, data) for path, data in files.items()]
    name, data = source_archive.pack("some-fork", "1.0", entries)
    assert (name, data) == source_archive.pack("some-fork", "1.0", entries[::-1])
    with tarfile.open(fileobj=BytesIO(gzip.decompress(data))) as archive:
        held = {one.name.partition("/")[2]: archive.extractfile(one).read() for one in archive}  # type: ignore[union-attr]
    assert held.pop("PKG-INFO").startswith(b"Metadata-Version: 2.1\nName: some-fork\n")
    assert held == files
