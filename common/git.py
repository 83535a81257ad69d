"""What git says of this checkout, where that cannot be made up.

A revision is called clean only when every file of the checkout is, byte for byte, what the commit's own hash covers. Files and
trees are hashed here ("Git Internals: Git Objects", git-scm.com/book): nothing that decides what git shows or passes over has a
say: its variables, index and flags, filters, replaced or grafted objects, another work tree.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from common import paths
from common.errors import MissingEnvironmentError
from common.run import Result, run

# Neither variables nor settings of the user, of the machine or of this repository change what is answered, or start anything.
_ENVIRONMENT = {
    **{"LC_ALL": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_ATTR_NOSYSTEM": "1"},
    **{"GIT_NO_REPLACE_OBJECTS": "1", "GIT_GRAFT_FILE": os.devnull, "GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0"},
}
_SETTINGS = ("core.fsmonitor=false", f"core.hooksPath={os.devnull}", f"core.excludesFile={os.devnull}", "core.ignoreCase=false")
_PLAIN = [part for setting in (*_SETTINGS, "protocol.allow=never") for part in ("-c", setting)]
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# Written by `invoke push`, after the build that it is about.
_AFTERWARDS = "lockfiles/images.lock"
_IGNORED = ".gitignore"
# In a folder that is there, and not there itself.
_NO_INDEX = "/no-index-of-pinwheel"

# Mode and hash of each file, by path.
_Tree = Mapping[str, tuple[str, str]]


def revision() -> str:
    """The commit checked out, with `-dirty` when a file differs, is new, or could be taken for one; `unknown` outside git."""
    head = _git("rev-parse", "--verify", "HEAD^{commit}")
    commit = head.stdout.strip() if head else ""
    if head is None or head.code or not _COMMIT.fullmatch(commit):
        return "unknown"
    tree = _tree(commit)
    clean = tree is not None and not _changed(tree, tree) and not _strange(tree)
    return commit if clean else f"{commit}-dirty"


def knows(commit: str) -> bool:
    """Whether git has a commit of exactly this hash, written in full."""
    return _tree(commit) is not None


def differing(commit: str, places: Iterable[Path]) -> list[str]:
    """What in these files and folders of the checkout is not as in a commit, sorted; all of it where git has no such commit.

    The record of the last push does not count: it is written after what it is about.
    """
    names = [str(place.relative_to(paths.ROOT)) for place in places]
    tree = _tree(commit)
    if tree is None:
        return sorted(names)
    found = {name for name in names if not (paths.ROOT / name).is_dir() and name not in tree}
    found |= {
        path
        for path in (*_changed(tree, tree), *_strange(tree))
        if any(path == name or path.startswith(f"{name}/") for name in names)
    }
    return sorted(found - {_AFTERWARDS})


def digest(commit: str, file: Path) -> str:
    """`sha256:…` of a file of the checkout as a commit has it; empty where it does not."""
    _, found = (_tree(commit) or {}).get(str(file.relative_to(paths.ROOT)), ("", ""))
    answer = _git("cat-file", "blob", found) if found else None
    if answer is None or answer.code or _hash("blob", data := _bytes(answer), len(found)) != found:
        return ""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def ignored(files: Iterable[Path]) -> tuple[str, ...]:
    """Those of these files of the checkout that git ignores and does not hold all the same; none outside git."""
    names = "\0".join(sorted({str(file.relative_to(paths.ROOT)) for file in files if file.is_relative_to(paths.ROOT)}))
    answer = _git("check-ignore", "-z", "--stdin", stdin=names)
    return tuple(filter(None, answer.stdout.split("\0"))) if answer and answer.code == 0 else ()


def _git(*arguments: str, stdin: str | None = None, index: str = "") -> Result | None:
    """What git answers about exactly this checkout; None where there is no git, or this is no checkout."""
    folder = paths.ROOT / ".git"
    if not folder.exists():
        return None
    own = {**_ENVIRONMENT, "PATH": os.environ.get("PATH", os.defpath), **({"GIT_INDEX_FILE": index} if index else {})}
    where = ["-C", str(paths.ROOT), f"--git-dir={folder}", f"--work-tree={paths.ROOT}"]
    try:
        return run(["git", *where, *_PLAIN, *arguments], env=own, inherit=False, stdin=stdin, exact=True)
    except MissingEnvironmentError:
        return None


def _bytes(answer: Result) -> bytes:
    return answer.stdout.encode("utf-8", "surrogateescape")


def _hash(kind: str, data: bytes, length: int) -> str:
    """Git's name of an object, by SHA-1 or SHA-256, as its length says."""
    algorithm = hashlib.sha256 if length == 64 else hashlib.sha1
    return algorithm(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def _tree(commit: str) -> _Tree | None:
    """The files of a commit; None where git has no such commit, or shows other files than its hash covers."""
    if not _COMMIT.fullmatch(commit):
        return None
    shown, listed = _git("cat-file", "commit", commit), _git("ls-tree", "-r", "-z", "--full-tree", commit)
    if shown is None or listed is None or shown.code or listed.code:
        return None
    head = shown.stdout.partition("\n")[0].removeprefix("tree ")
    files: dict[str, tuple[str, str]] = {}
    for line in filter(None, listed.stdout.split("\0")):
        about, _, path = line.partition("\t")
        mode, _, name = about.split(" ")
        files[path] = (mode, name)
    covered = _hash("commit", _bytes(shown), len(commit)) == commit and _root(files, len(commit)) == head
    return files if covered else None


def _root(files: _Tree, length: int) -> str:
    """The hash of the tree that holds these files."""
    nested: dict[str, dict[str, tuple[str, str]]] = {}
    entries: dict[bytes, tuple[str, str]] = {}
    for path, (mode, name) in files.items():
        first, slash, rest = path.partition("/")
        if slash:
            nested.setdefault(first, {})[rest] = (mode, name)
        else:
            entries[_encoded(first)] = (mode, name)
    # A folder is sorted as if its name ended in a slash.
    entries |= {_encoded(f"{first}/"): ("40000", _root(below, length)) for first, below in nested.items()}
    data = b"".join(
        mode.encode() + b" " + name.removesuffix(b"/") + b"\0" + bytes.fromhex(found)
        for name, (mode, found) in sorted(entries.items())
    )
    return _hash("tree", data, length)


def _encoded(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _changed(tree: _Tree, among: Iterable[str]) -> list[str]:
    """Files of a tree that the checkout has otherwise, or not."""
    return [path for path in among if _file(paths.ROOT / path, len(tree[path][1])) != tree[path]]


def _file(path: Path, length: int) -> tuple[str, str]:
    """Mode and hash of what lies there, as git would write them; empty for what git does not hold."""
    try:
        about = path.lstat()
        if stat.S_ISLNK(about.st_mode):
            return "120000", _hash("blob", os.fsencode(path.readlink()), length)
        if stat.S_ISREG(about.st_mode):
            return ("100755" if about.st_mode & stat.S_IXUSR else "100644"), _hash("blob", path.read_bytes(), length)
    except OSError:
        pass
    return "", ""


def _strange(tree: _Tree) -> list[str]:
    """Files that are not of a tree, and that a stage could read all the same.

    What the committed list of the ignored names at the top, and folders of compiled Python, are not read. Other lists
    (`.git/info/exclude`, a new `.gitignore`) hide nothing; nor does a name that is ignored below the top.
    """
    committed = _IGNORED in tree
    lists = [f"--exclude-from={paths.ROOT / _IGNORED}"] if committed else []
    # Without an index nothing counts as tracked but what the tree says.
    new = _git("ls-files", "-z", "--others", *lists, index=_NO_INDEX)
    hidden = _git("ls-files", "-z", "--others", "--ignored", *lists, "--directory", index=_NO_INDEX)
    if new is None or new.code or (committed and (hidden is None or hidden.code)):
        return [_IGNORED]
    found = [path for path in new.stdout.split("\0") if path and path not in tree]
    for path in filter(None, (hidden.stdout if committed and hidden else "").split("\0")):
        top = "/" not in path.rstrip("/") and not path.endswith(".pyc")
        if path not in tree and not top and not _compiled(path):
            found.append(path)
    return sorted(found)


def _compiled(path: str) -> bool:
    """Whether this is a folder of compiled Python and nothing else."""
    folder = paths.ROOT / path
    if Path(path).name != "__pycache__" or folder.is_symlink() or not folder.is_dir():
        return False
    return all(file.suffix == ".pyc" and file.is_file() and not file.is_symlink() for file in folder.iterdir())
