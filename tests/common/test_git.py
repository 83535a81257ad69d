"""A revision is clean where every byte is the commit's; what decides what git shows has no say. Each test is an attack."""

from __future__ import annotations

import os
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from common import git, paths
from common.files import sha256_bytes

pytestmark = pytest.mark.slow

Change = Callable[[Path], None]


def call(folder: Path, *arguments: str, stdin: str = "") -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True, input=stdin)
    return done.stdout.strip()


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        place = folder / name.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    write(folder, images__api="one\n", images__deep__er="two\n", lockfiles__lock="three\n", tool="#!/bin/sh\n")
    (folder / "tool").chmod(0o755)
    (folder / "link").symlink_to("tool")
    (folder / ".gitignore").write_text("/.venv/\n__pycache__/\n*.pyc\n/notes\n.hypothesis/\n")
    call(folder, "init", "-q")
    call(folder, "add", ".")
    call(folder, "commit", "-q", "-m", "é: not ASCII")
    monkeypatch.setattr(paths, "ROOT", folder)
    return folder


def head(checkout: Path) -> str:
    return call(checkout, "rev-parse", "HEAD")


def test_a_checkout_as_committed_is_clean(checkout: Path) -> None:
    assert git.revision() == head(checkout)
    assert git.knows(head(checkout))


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_both_of_gits_hashes_are_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str) -> None:
    call(tmp_path, "init", "-q", f"--object-format={algorithm}")
    write(tmp_path, **{"a.b": "1", "a__b": "2", "a0": "3"})
    call(tmp_path, "add", ".")
    call(tmp_path, "commit", "-q", "-m", "x")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert git.revision() == head(tmp_path)


def test_what_the_list_of_ignored_names_covers_and_no_stage_reads_leaves_it_clean(checkout: Path) -> None:
    write(checkout, **{".venv__bin__python": "x", "notes": "x"})
    (checkout / "images" / "__pycache__").mkdir()
    (checkout / "images" / "__pycache__" / "api.cpython-311.pyc").write_bytes(b"x")
    assert git.revision() == head(checkout)


def changed(checkout: Path) -> None:
    # As long as before, and of the same time.
    file, before = checkout / "images/api", (checkout / "images/api").stat()
    file.write_text("eno\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def flagged(flag: str) -> Change:
    def change(checkout: Path) -> None:
        call(checkout, "update-index", flag, "images/api")
        changed(checkout)

    return change


def settings(*pairs: tuple[str, str]) -> Change:
    def change(checkout: Path) -> None:
        for name, value in pairs:
            call(checkout, "config", name, value)
        changed(checkout)

    return change


def filtered(checkout: Path) -> None:
    """A filter gives git the committed text back, whatever lies there; its attributes are not among the files."""
    (checkout / ".git/info/attributes").write_text("images/api filter=lie\n")
    settings(("filter.lie.clean", "echo one"), ("filter.lie.smudge", "cat"))(checkout)


def elsewhere(checkout: Path) -> None:
    """The settings name another folder as the work tree, which is clean."""
    other = checkout.with_name("other")
    call(checkout.parent, "clone", "-q", str(checkout), str(other))
    settings(("core.worktree", str(other)))(checkout)


def replaced(checkout: Path) -> None:
    """The commit's name shows another commit, which holds the change."""
    old = head(checkout)
    changed(checkout)
    call(checkout, "add", ".")
    tree = call(checkout, "write-tree")
    call(checkout, "reset", "-q", "--soft", old)
    call(checkout, "replace", old, call(checkout, "commit-tree", tree, "-m", "x"))


def forged(checkout: Path) -> None:
    """The object of the file has another content than its name says: git does not hash what it reads."""
    changed(checkout)
    name = call(checkout, "rev-parse", "HEAD:images")
    new = call(checkout, "hash-object", "-w", "images/api")
    listed = call(checkout, "ls-tree", "HEAD:images").replace(call(checkout, "rev-parse", "HEAD:images/api"), new)
    tree = call(checkout, "mktree", stdin=listed + "\n")
    objects = checkout / ".git/objects"
    target = objects / name[:2] / name[2:]
    target.chmod(0o644)
    target.write_bytes((objects / tree[:2] / tree[2:]).read_bytes())
    assert zlib.decompress(target.read_bytes())


def new_ignored_by(list_: str) -> Change:
    def change(checkout: Path) -> None:
        write(checkout, images__new="x")
        (checkout / list_).write_text("new\n.gitignore\n")

    return change


def excluded_by_settings(checkout: Path) -> None:
    write(checkout, images__new="x")
    (checkout.parent / "excludes").write_text("new\n")
    call(checkout, "config", "core.excludesFile", str(checkout.parent / "excludes"))


def nested(checkout: Path) -> None:
    call(checkout, "init", "-q", "images/sub")


def submodule(checkout: Path) -> None:
    nested(checkout)
    call(checkout / "images/sub", "commit", "-q", "--allow-empty", "-m", "x")
    call(checkout, "add", "images/sub")
    call(checkout, "commit", "-q", "-m", "y")
    call(checkout, "config", "submodule.images/sub.ignore", "all")
    write(checkout, images__sub__new="x")


def sparse(checkout: Path) -> None:
    call(checkout, "config", "core.sparseCheckout", "true")
    (checkout / ".git/info/sparse-checkout").write_text("/lockfiles/\n")
    call(checkout, "read-tree", "-mu", "HEAD")


def monitored(checkout: Path) -> None:
    """A program that says that nothing changed: it is not asked, and does not run."""
    program = checkout.parent / "monitor"
    program.write_text(f"#!/bin/sh\ntouch {checkout.parent}/ran\nprintf 'token\\0'\n")
    program.chmod(0o755)
    call(checkout, "status")
    call(checkout, "config", "core.fsmonitor", str(program))
    changed(checkout)


def all_of(*actions: Callable[[Path], object]) -> Change:
    def change(checkout: Path) -> None:
        for action in actions:
            action(checkout)

    return change


def linked(name: str, to: str) -> Change:
    def change(checkout: Path) -> None:
        (checkout / name).rename(checkout.parent / "moved")
        (checkout / name).symlink_to(to)

    return change


def set_(name: str, value: str) -> Change:
    def change(checkout: Path) -> None:
        call(checkout, "config", name, value)

    return change


def new(name: str = "images__new") -> Change:
    return lambda checkout: write(checkout, **{name: "x"})


def executable(checkout: Path) -> None:
    (checkout / "images/api").chmod(0o755)


ATTACKS: dict[str, Change] = {
    "a file changed": changed,
    "a new file": new(),
    "a new file in the index": all_of(new(), lambda checkout: call(checkout, "add", ".")),
    "a file removed": lambda checkout: (checkout / "images/api").unlink(),
    "a file that is a link now": linked("images/api", "../../moved"),
    "a folder that is a link now": linked("images/deep", "../../moved"),
    "a link that leads elsewhere": linked("link", "images/api"),
    "a program that was none": executable,
    "assume-unchanged": flagged("--assume-unchanged"),
    "skip-worktree": flagged("--skip-worktree"),
    "times are not looked at": settings(("core.checkStat", "minimal"), ("core.trustctime", "false")),
    "the index is believed": settings(("core.ignoreStat", "true")),
    "modes are not looked at": all_of(set_("core.fileMode", "false"), executable),
    "new files are not shown": all_of(set_("status.showUntrackedFiles", "no"), new()),
    "a filter": filtered,
    "line ends": all_of(set_("core.autocrlf", "true"), lambda c: (c / "images/api").write_bytes(b"one\r\n")),
    "another work tree": elsewhere,
    "a replaced commit": replaced,
    "a forged object": forged,
    "ignored by .git/info/exclude": new_ignored_by(".git/info/exclude"),
    "ignored by a list of its own": new_ignored_by("images/.gitignore"),
    "ignored by the settings": excluded_by_settings,
    "ignored below the top": new("images__.hypothesis__image.toml"),
    "compiled Python beside its source": new("images__a.pyc"),
    "a package of compiled Python": new("images__spec____init__.pyc"),
    "more than compiled Python in its folder": lambda c: write(c / "images/__pycache__", **{"image.toml": "x"}),
    "another repository inside": nested,
    "a submodule that is passed over": submodule,
    "files left out": sparse,
    "a file monitor": monitored,
}


@pytest.mark.parametrize("change", ATTACKS.values(), ids=ATTACKS)
def test_a_change_cannot_be_hidden(checkout: Path, change: Change) -> None:
    change(checkout)
    assert git.revision() == f"{head(checkout)}-dirty"
    assert not (checkout.parent / "ran").exists()


@pytest.mark.parametrize(
    "variables",
    [
        ("GIT_DIR", "GIT_WORK_TREE"),
        ("GIT_DIR",),
        ("GIT_WORK_TREE",),
        ("GIT_INDEX_FILE",),
        ("GIT_OBJECT_DIRECTORY",),
        ("GIT_COMMON_DIR",),
        ("GIT_CONFIG_COUNT",),
        ("GIT_REPLACE_REF_BASE",),
        ("GIT_CEILING_DIRECTORIES",),
    ],
    ids="+".join,
)
def test_no_variable_of_gits_changes_the_answer(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: tuple[str, ...]
) -> None:
    other = tmp_path / "clean"
    call(tmp_path, "init", "-q", str(other))
    call(other, "commit", "-q", "--allow-empty", "-m", "x")
    expected = head(checkout)
    values = {"GIT_DIR": other / ".git", "GIT_WORK_TREE": other, "GIT_INDEX_FILE": other / ".git/index"}
    for name in variables:
        monkeypatch.setenv(name, str(values.get(name, other / ".git/objects")))
    if variables == ("GIT_CONFIG_COUNT",):
        for name, value in (("COUNT", "1"), ("KEY_0", "core.worktree"), ("VALUE_0", str(other))):
            monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    assert git.revision() == expected
    changed(checkout)
    assert git.revision() == f"{expected}-dirty"


def test_outside_git_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkout: Path) -> None:
    # A folder in somebody's checkout is no checkout: that one's revision says nothing of it.
    inner = checkout / "inner"
    inner.mkdir()
    monkeypatch.setattr(paths, "ROOT", inner)
    assert git.revision() == "unknown"
    assert not git.knows(head(checkout))
    assert git.ignored([inner / "x.pyc"]) == ()


def test_a_checkout_of_git_worktree_is_one(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(checkout, "worktree", "add", "-q", "../second")
    monkeypatch.setattr(paths, "ROOT", checkout.parent / "second")
    assert git.revision() == head(checkout)


@pytest.mark.parametrize("commit", ["", "HEAD", "main", "0" * 40, "--help", "abc", "A" * 40])
def test_a_commit_is_known_by_its_whole_hash_alone(checkout: Path, commit: str) -> None:
    assert not git.knows(commit)
    assert git.differing(commit, [checkout / "images"]) == ["images"]
    assert git.digest(commit, checkout / "tool") == ""


def test_a_commit_is_compared_in_the_places_that_are_asked_for(checkout: Path) -> None:
    first = head(checkout)
    write(checkout, docs__page="x")
    call(checkout, "add", ".")
    call(checkout, "commit", "-q", "-m", "y")
    assert git.differing(first, [checkout / "images", checkout / "lockfiles"]) == []
    write(checkout, images__api="x", images__new="x", **{"lockfiles__images.lock": "x"})
    assert git.differing(first, [checkout / "images", checkout / "lockfiles", checkout / "docs/page"]) == [
        "docs/page",
        "images/api",
        "images/new",
    ]
    assert git.digest(first, checkout / "lockfiles/lock") == sha256_bytes(b"three\n")
