"""What the files of an image are, as one JSON object on standard output: modes, secrets, caches, libraries not found.

Of the places that it is given it says all: each folder, file and link in them, with mode, owner and sha256.

Runs inside any of the images, and as plain `python3` elsewhere: standard library only. It looks at the file system of the
folder it is given, not at what is mounted below it, and judges nothing. What its user may not look into, it says.

    python3 contents.py [FOLDER [PLACE...]]
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Where keys and passwords of people and services lie by custom.
_SECRETS = (
    *("*/.netrc", "*/.pypirc", "*/.git-credentials", "*/.docker/config.json", "*/.dockercfg", "*/.aws/credentials"),
    *("*/.kube/config", "*/.ssh/*", "*/.gnupg/*", "*/.config/gcloud/*", "*/huggingface/token", "*/id_rsa", "*/id_ed25519"),
    *("*/.env", "/etc/ssl/private/*", "/etc/ssh/ssh_host_*", "/etc/shadow", "/etc/gshadow", "/run/secrets/*"),
)
# What a build leaves that an image has no use for.
_CACHES = (
    *("/var/lib/apt/lists/*", "/var/cache/apt/*", "/var/log/*", "/var/cache/ldconfig/*", "/var/backups/*"),
    *("*/.cache/*", "*/uv_cache.json", "*/pip/http*/*", "*/.npm/*", "*/.bash_history", "*/.python_history", "*/.wget-hsts"),
)
# RFC 7468 and its elders: a line of its own.
_PRIVATE_KEY = re.compile(
    rb"^-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\r?\n[A-Za-z0-9+/=:\- ,\r\n]{64}", re.MULTILINE
)
# What wheels brought is what anybody can download: no secret of ours, but gigabytes to read.
_PUBLIC = "/opt/venv/lib/"
_LARGEST_TEXT = 1 << 20
# ld.so(8): where a library is looked for that no path of the file itself leads to, as Debian has it on amd64.
_DEFAULT = (
    *("/usr/lib/x86_64-linux-gnu", "/usr/lib", "/usr/local/lib", "/usr/local/lib/x86_64-linux-gnu"),
    # Links to the first two.
    *("/lib/x86_64-linux-gnu", "/lib"),
)
_X86_64, _PT_LOAD, _PT_DYNAMIC = 62, 1, 2
_DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 1, 5, 15, 29


@dataclass(slots=True)
class Found:
    """What the walk found; paths as they are in the image, sorted at the end.

    Attributes:
        files: how many there are.
        set_id: files and folders with a set-user-ID or set-group-ID bit.
        world_writable: files and folders that anybody may write to.
        own: what belongs to the user who looks.
        secrets: files that lie where secrets do, or hold a private key.
        caches: files that an image has no use for.
        closed: what cannot be looked into.
        linked: how many files the dynamic loader has to do with.
        missing: (file, library that it needs) where the loader finds none.
        names: the names of all files, to tell a library that is elsewhere from one that is nowhere.
        placed: what is at and below the places asked for: (path, kind, mode, user, group, sha256 of a file).
    """

    files: int = 0
    set_id: list[str] = field(default_factory=list)
    world_writable: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    caches: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    linked: int = 0
    missing: list[tuple[str, str]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    placed: list[tuple[str, str, str, int, int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Linked:
    """What an ELF file asks of the dynamic loader."""

    needed: tuple[str, ...]
    search: tuple[str, ...]


def walk(root: str, places: Iterable[str] = ()) -> Found:
    """Look at everything below a folder that is on its file system.

    Args:
        root: the folder.
        places: absolute paths in the image, of which everything is told.
    """
    asked = tuple(places)
    found = Found()
    me = os.getuid()
    root = root.rstrip("/")
    for path, info in _entries(root or "/", os.lstat(root or "/").st_dev, found):
        place = path.removeprefix(root)
        mode = info.st_mode
        if any(place == asked_for or place.startswith(f"{asked_for}/") for asked_for in asked):
            found.placed.append(_placed(path, place, info))
        if stat.S_ISLNK(mode):
            found.names.add(path.rpartition("/")[2])
            continue
        if mode & (stat.S_ISUID | stat.S_ISGID):
            found.set_id.append(place)
        if mode & stat.S_IWOTH and not stat.S_ISCHR(mode):
            found.world_writable.append(place)
        if info.st_uid == me:
            found.own.append(place)
        if stat.S_ISREG(mode):
            _file(root, place, info, found)
    found.closed = [path.removeprefix(root) for path in found.closed]
    for one in (
        found.set_id,
        found.world_writable,
        found.own,
        found.secrets,
        found.caches,
        found.closed,
        found.missing,
        found.placed,
    ):
        one.sort()
    return found


def _placed(path: str, place: str, info: os.stat_result) -> tuple[str, str, str, int, int, str]:
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
    kind, digest = kinds.get(stat.S_IFMT(info.st_mode), "device"), ""
    if kind == "file":
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except PermissionError:
            digest = "not readable"
    return place, kind, f"{stat.S_IMODE(info.st_mode):04o}", info.st_uid, info.st_gid, digest


def _entries(folder: str, device: int, found: Found) -> Iterator[tuple[str, os.stat_result]]:
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except PermissionError:
        found.closed.append(folder)
        return
    for entry in entries:
        info = entry.stat(follow_symlinks=False)
        if info.st_dev != device:
            continue
        yield entry.path, info
        if stat.S_ISDIR(info.st_mode):
            yield from _entries(entry.path, device, found)


def _file(root: str, place: str, info: os.stat_result, found: Found) -> None:
    name = place.rpartition("/")[2]
    found.files += 1
    found.names.add(name)
    # An empty one is a lock, or a place to mount on.
    if not info.st_size:
        return
    if any(fnmatch.fnmatchcase(place, pattern) for pattern in _CACHES):
        found.caches.append(place)
    secret = any(fnmatch.fnmatchcase(place, pattern) for pattern in _SECRETS)
    text = info.st_size <= _LARGEST_TEXT and not place.startswith(_PUBLIC)
    if text or ".so" in name or info.st_mode & stat.S_IXUSR:
        try:
            with open(root + place, "rb", buffering=0) as file:
                head = file.read(4)
                if head == b"\x7fELF":
                    _library(file.fileno(), root, place, found)
                elif text:
                    secret = secret or _PRIVATE_KEY.search(head + file.read()) is not None
        except PermissionError:
            found.closed.append(root + place)
    if secret:
        found.secrets.append(place)


def _library(handle: int, root: str, place: str, found: Found) -> None:
    one = linked(handle, root + place.rpartition("/")[0])
    if one is None:
        return
    found.linked += 1
    folders = [*one.search, *(root + folder for folder in _DEFAULT)]
    found.missing += [(place, name) for name in one.needed if not any(Path(folder, name).exists() for folder in folders)]


def linked(handle: int, origin: str) -> Linked | None:
    """What an ELF file of this machine asks for (System V ABI, "Dynamic Linking"); None where it asks for nothing.

    Args:
        handle: of the open file.
        origin: the folder it lies in.
    """
    # e_machine; e_phoff; e_phentsize, e_phnum
    head = os.pread(handle, 64, 0)
    if len(head) < 64 or head[4] != 2 or head[5] != 1 or struct.unpack_from("<H", head, 18)[0] != _X86_64:
        return None
    (table,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    headers = os.pread(handle, size * count, table)
    # p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz
    parts = [struct.unpack_from("<IIQQQQ", headers, at) for at in range(0, len(headers) - 55, size or 56)]
    dynamic = next((part for part in parts if part[0] == _PT_DYNAMIC), None)
    if dynamic is None:
        return None
    data = os.pread(handle, dynamic[5], dynamic[2])
    tags = [struct.unpack_from("<qQ", data, at) for at in range(0, len(data) - 15, 16)]
    address = dict(tags).get(_DT_STRTAB)
    strings = next(
        (p[2] + address - p[3] for p in parts if p[0] == _PT_LOAD and address and p[3] <= address < p[3] + p[5]), None
    )
    if strings is None:
        return None

    def texts(tag: int) -> list[str]:
        return [_text(handle, strings + value) for kind, value in tags if kind == tag]

    # DT_RPATH counts only where there is no DT_RUNPATH.
    search = [folder for text in texts(_DT_RUNPATH) or texts(_DT_RPATH) for folder in text.split(":") if folder]
    return Linked(
        tuple(texts(_DT_NEEDED)), tuple(folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for folder in search)
    )


def _text(handle: int, offset: int) -> str:
    data = b""
    while b"\0" not in data and (more := os.pread(handle, 4096, offset + len(data))):
        data += more
    return data.partition(b"\0")[0].decode(errors="replace")


def searched(configuration: Path) -> list[str]:
    """The folders in which the loader's configuration lets it look (ldconfig(8))."""
    lines = [line for file in sorted(configuration.glob("*.conf")) for line in file.read_text().splitlines()]
    return [line.strip() for line in lines if line.startswith("/")]


def main() -> None:
    """Print what is found."""
    root = sys.argv[1] if len(sys.argv) > 1 else "/"
    found = walk(root, sys.argv[2:])
    print(
        json.dumps(
            {
                "files": found.files,
                "set_id": found.set_id,
                "world_writable": found.world_writable,
                "own": found.own,
                "secrets": found.secrets,
                "caches": found.caches,
                "closed": found.closed,
                "linked": found.linked,
                "placed": found.placed,
                "missing": [(file, name, name in found.names) for file, name in found.missing],
                "searched": sorted(set(searched(Path(root) / "etc/ld.so.conf.d")) - set(_DEFAULT)),
            },
            sort_keys=True,
        )
    )


if __name__ == "__main__":
    main()
