"""Two file trees compared, entry by entry, but for the differences that differences.toml explains."""

from __future__ import annotations

import csv
import fnmatch
import io
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from images.spec import ImageSpec
from images.wheels.install import PREFIX, SITE
from tests.images.trees import Entry, Tree

_RULES = tomllib.loads((Path(__file__).parent / "differences.toml").read_text())["difference"]
# What both trees keep the bytes of.
KEEP = re.compile(rf"{SITE}/[^/]+\.dist-info/.+|{PREFIX}/bin/[^/]+|{PREFIX}/pyvenv\.cfg")
_RECORD = re.compile(rf"{SITE}/[^/]+\.dist-info/RECORD")
_SCRIPT = re.compile(rf"{PREFIX}/bin/[^/]+")
# What an installer writes for an entry point: its interpreter, and the object that is called.
_IMPORT = re.compile(rb"^(#!.+)\n(?:.*\n)*?from (\S+) import (\S+)\n(?:.*\n)*?\s+sys\.exit\((\S+)\(\)\)\n?$")


@dataclass(frozen=True)
class Difference:
    """What differs at a path: `absent`, `extra`, `kind`, `mode`, `owner`, `target` or `content`."""

    path: str
    what: str
    ours: Entry | None
    theirs: Entry | None


def unexplained(ours: Tree, theirs: Tree, by: str, *, image: ImageSpec | None = None) -> list[Difference]:
    """What differs without an explanation.

    Args:
        ours: the image's.
        theirs: the other.
        by: who made the other, as `by` in differences.toml.
        image: says which files are left out on purpose.

    Raises:
        AssertionError: an explanation explains nothing.
    """
    left = _left_out(theirs, image)
    rules = [rule for rule in _RULES if by in rule["by"]]
    idle, found = list(rules), []
    for one in _differences(ours, theirs, left):
        matching = [rule for rule in rules if rule["what"] == one.what and fnmatch.fnmatchcase(one.path, rule["path"])]
        idle = [rule for rule in idle if rule not in matching]
        if not matching:
            found.append(one)
    assert not idle, f"explains nothing: {idle}"
    return found


def _differences(ours: Tree, theirs: Tree, left: set[str]) -> list[Difference]:
    found = []
    for path in sorted({*ours.entries, *theirs.entries}):
        mine, other = ours.entries.get(path), theirs.entries.get(path)
        if mine is None or other is None:
            if path not in left:
                found.append(Difference(path, "extra" if mine else "absent", mine, other))
            continue
        pairs = [("kind", mine.kind, other.kind), ("mode", mine.mode, other.mode), ("target", mine.target, other.target)]
        pairs.append(("owner", f"{mine.uid}:{mine.gid}", f"{other.uid}:{other.gid}"))
        found += [Difference(path, what, mine, other) for what, one, two in pairs if one != two]
        if (mine.size, mine.sha256) != (other.size, other.sha256) and not _mean_the_same(path, ours, theirs, left):
            found.append(Difference(path, "content", mine, other))
    return found


def _mean_the_same(path: str, ours: Tree, theirs: Tree, left: set[str]) -> bool:
    if path not in ours.kept or path not in theirs.kept:
        return False
    mine, other = ours.kept[path], theirs.kept[path]
    if _RECORD.fullmatch(path):
        one, two = _rows(mine, left), _rows(other, left)
        return one.keys() == two.keys() and all(_agree(one[row], two[row]) for row in one)
    if _SCRIPT.fullmatch(path):
        calls = [_IMPORT.fullmatch(script) for script in (mine, other)]
        return None not in calls and len({call.groups() for call in calls if call}) == 1
    return False


def _rows(record: bytes, left: set[str]) -> dict[str, tuple[str, str]]:
    """RECORD's rows by path, less what only one of two installers writes down of itself.

    Ours names bytecode, as pip does; uv does not. The hashes of INSTALLER and of scripts follow from their content.
    """
    rows = {}
    for path, digest, size in csv.reader(io.StringIO(record.decode())):
        own = (
            path.rpartition("/")[2] in ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json") and ".dist-info/" in path
        )
        if own or path.endswith(".pyc") or f"{SITE}/{path}" in left:
            continue
        rows[path] = ("", "") if path.startswith("../../../bin/") else (digest, size)
    return rows


def _agree(one: tuple[str, str], two: tuple[str, str]) -> bool:
    """Whether hash and size of two rows agree; ours are sha256 always, others keep the wheel's sha512."""
    same = one[0].partition("=")[0] == two[0].partition("=")[0]
    return one == two if same else one[1] == two[1]


def _left_out(theirs: Tree, image: ImageSpec | None) -> set[str]:
    """Paths of the other tree that the spec leaves out, with the folders and the bytecode that go with them."""
    patterns: dict[str, list[str]] = {}
    for entry in image.left_out if image else ():
        patterns.setdefault(entry.package, []).extend(entry.paths)
    gone = set()
    for path, record in theirs.kept.items():
        name = canonicalize_name(path.removeprefix(f"{SITE}/").partition("-")[0])
        if _RECORD.fullmatch(path) and name in patterns:
            rows = [row[0] for row in csv.reader(io.StringIO(record.decode()))]
            gone |= {f"{SITE}/{row}" for row in rows if any(fnmatch.fnmatchcase(row, p) for p in patterns[name])}
    gone |= {
        f"{folder}/__pycache__/{file.removesuffix('.py')}.cpython-311.pyc"
        for folder, _, file in (path.rpartition("/") for path in gone)
        if file.endswith(".py")
    }
    # A folder goes with all that it holds.
    held: dict[str, int] = {}
    for path in theirs.entries:
        held[path.rpartition("/")[0]] = held.get(path.rpartition("/")[0], 0) + 1
    pending = list(gone)
    while pending:
        above = pending.pop().rpartition("/")[0]
        held[above] -= 1
        if not held[above]:
            gone.add(above)
            pending.append(above)
    return gone
