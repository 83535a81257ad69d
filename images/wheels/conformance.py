"""Whether a wheel is what the binary distribution format says, beyond what PyPA's `installer` insists on.

Every rule here is one that no honest wheel breaks and that some attack needs: a name that two readers read in two ways, a
second answer to which packages are installed, a file in place of what starts the image. Source of the format:
packaging.python.org, "Binary distribution format" and "Recording installed projects".
"""

from __future__ import annotations

import csv
import email.parser
import io
import keyword
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from installer.utils import parse_entrypoints
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from common.errors import BuildError
from lockfiles.model import Wheel

# Linux: NAME_MAX and PATH_MAX (limits.h), the latter with room for what the wheel is unpacked below.
_NAME, _PATH = 255, 3840
_DRIVE = re.compile(r"[A-Za-z]:")
# An installer's own notes ("Recording installed projects"); from a wheel they would be forged.
_NOTES = ("INSTALLER", "REQUESTED", "direct_url.json")
# What `python -m venv` lays out (PEP 405) and our config layer writes.
_FRAME = re.compile(r"(bin/python[0-9.]*|pyvenv\.cfg|lib64)(/|$)")
_SCHEMES = ("purelib", "platlib", "headers", "scripts", "data")


def refused(wheel: Wheel, path: str, why: str) -> BuildError:
    """The error for a file of a wheel that cannot be trusted."""
    what = f"{wheel.artifact.file}: {shown(path)} {shown(why)}"
    return BuildError(what, fix="the wheel is broken or hostile; pin another version")


def unrecorded(wheel: Wheel, path: str, why: str, others: Sequence[str] = ()) -> BuildError:
    """The error for files that RECORD describes wrongly; pip installs some of those, and a spec may accept them by name."""
    more = f", and so with {len(others)} more ({', '.join(map(shown, others[:5]))})" if others else ""
    table = f'[[record_errors]] package = "{wheel.name}" version = "{wheel.version}" path = "{shown(path)}" reason = "…"'
    fix = f"the wheel is broken or hostile; pin another version, or look at each file and state in image.toml: {table}"
    return BuildError(f"{wheel.artifact.file}: {shown(path)} {shown(why)}{more}", where="docs/images.md", fix=fix)


def shown(path: str) -> str:
    """A path from an archive, fit for a terminal: what is not printable is escaped."""
    text = path if path.isprintable() else ascii(path)[1:-1]
    return text if len(text) <= 300 else f"{text[:200]}…{text[-90:]}"


def check_names(wheel: Wheel, names: Iterable[str], data: str) -> None:
    """Refuse names of an archive that are not plainly below its root, or that clash with each other.

    Args:
        wheel: whose names they are.
        names: of all entries; folders end with a slash.
        data: its `.data` folder.

    Raises:
        BuildError: naming the path.
    """
    files, folders, normal = set[str](), set[str](), dict[str, str]()
    for name in sorted(names):
        if why := _not_plain(name):
            raise refused(wheel, name, why)
        path = name.removesuffix("/")
        top, _, rest = path.partition("/")
        if top.endswith(".data") and top != data:
            raise refused(wheel, name, "is the data of another package")
        if top == data and (rest.partition("/")[0] not in _SCHEMES and (rest or name == path)):
            raise refused(wheel, name, "is in no scheme of installation")
        if top == data and name == path and "/" not in rest:
            raise refused(wheel, name, "is a file where a scheme's folder belongs")
        if top.endswith(".dist-info") and rest in _NOTES:
            raise refused(wheel, name, "is the installer's to write")
        if normal.setdefault(unicodedata.normalize("NFC", path), path) != path:
            raise refused(wheel, name, "differs from another name in Unicode form alone")
        (files if name == path else folders).add(path)
        while path := path.rpartition("/")[0]:
            folders.add(path)
    for path in sorted(files & folders):
        raise refused(wheel, path, "is a file and a folder")


def check_target(wheel: Wheel, target: str, prefix: str, site: str) -> None:
    """Refuse a place in the virtual environment that is not this wheel's to fill.

    Args:
        wheel: whose file it is.
        target: path in the image, as the other two.
        prefix: the environment.
        site: its site-packages.

    Raises:
        BuildError: naming the path.
    """
    if _FRAME.match(target.removeprefix(f"{prefix}/")):
        raise refused(wheel, target, "is the virtual environment's own")
    if not target.startswith(f"{site}/"):
        return
    stem, dot, kind = target[len(site) + 1 :].partition("/")[0].rpartition(".")
    if dot and kind in ("dist-info", "egg-info") and not (kind == "dist-info" and is_of(wheel, *_halves(stem))):
        raise refused(wheel, target, "is the metadata of another package")


def check_identity(wheel: Wheel, path: str, metadata: bytes) -> None:
    """Refuse a wheel that is not, in what it says, the package that the lock names.

    Args:
        wheel: as the lock has it.
        path: of METADATA.
        metadata: its bytes.

    Raises:
        BuildError: naming what says otherwise.
    """
    if not is_of(wheel, *wheel.artifact.file.split("-")[:2]):
        raise refused(wheel, "its file name", f"is not that of {wheel.name} {wheel.version}")
    said = email.parser.BytesHeaderParser().parsebytes(metadata)
    names, versions = said.get_all("Name", []), said.get_all("Version", [])
    if len(names) != 1 or len(versions) != 1 or not is_of(wheel, str(names[0]), str(versions[0])):
        told = " ".join(str(one) for one in (*names, *versions)) or "nothing"
        raise refused(wheel, path, f"says {shown(told)}, the lock {wheel.name} {wheel.version}")


def check_entry_points(wheel: Wheel, path: str, data: bytes) -> None:
    """Refuse entry points of which no plain script can be made.

    Raises:
        BuildError: naming the file and the entry.
    """
    try:
        found = list(parse_entrypoints(data.decode()))
    except Exception as problem:  # noqa: BLE001 - configparser and assertions of installer's
        why = str(problem).partition("\n")[0]
        raise refused(wheel, path, f"cannot be read{': ' + shown(why) if why else ': an entry names no function'}") from None
    for name, module, attr, _ in found:
        if "/" in name or _not_plain(name):
            raise refused(wheel, path, f"names a script '{shown(name)}' that is no plain file name")
        if not all(part.isidentifier() and not keyword.iskeyword(part) for part in f"{module}.{attr}".split(".")):
            raise refused(wheel, path, f"names a function that cannot be: {shown(module)}:{shown(attr)}")


def read_record(wheel: Wheel, path: str, data: bytes) -> Mapping[str, tuple[str, str, str]]:
    """The rows of a RECORD by path.

    Raises:
        BuildError: it can be read in two ways, or not at all.
    """
    rows: dict[str, tuple[str, str, str]] = {}
    try:
        for row in csv.reader(io.StringIO(data.decode(), newline=""), strict=True):
            if len(row) != 3:
                raise refused(wheel, path, f"has a row of {len(row)} columns instead of 3: {shown(','.join(row))}")
            if row[0] in rows:
                raise refused(wheel, row[0], "stands twice in RECORD")
            if row[2] and not (row[2].isascii() and row[2].isdigit()):
                raise refused(wheel, row[0], f"has no size in RECORD but {shown(row[2])}")
            rows[row[0]] = (row[0], row[1], row[2])
    except (UnicodeDecodeError, csv.Error) as problem:
        raise refused(wheel, path, f"cannot be read: {problem}") from None
    if any(rows.get(path, ("", "", ""))[1:]):
        raise refused(wheel, path, "has a hash of itself")
    return rows


def _not_plain(name: str) -> str | None:
    parts = name.removesuffix("/").split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or _DRIVE.match(name):
        return "leaves its folder"
    if not name.isprintable():
        return "has characters that cannot be printed"
    if len(name.encode("utf-8", "surrogateescape")) > _PATH or any(len(p.encode()) > _NAME for p in parts):
        return "cannot be unpacked: the name is too long"
    return None


def _halves(text: str) -> tuple[str, str]:
    name, _, version = text.rpartition("-")
    return name, version


def is_of(wheel: Wheel, name: str, version: str) -> bool:
    """Whether this is the name and the version of the locked package, however they are written."""
    try:
        return canonicalize_name(name) == wheel.name and Version(version) == Version(wheel.version)
    except InvalidVersion:
        return False
