"""The files layer: files of the repository that `[[files]]` names, looked through for secrets, and written as one layer.

What counts is what the checkout holds: path and content; and what the entry says of mode and owner. Modes, owners and times
on this machine do not count. Links, devices and sockets are refused.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from common import git, paths
from common.errors import BuildError, UsageError
from common.files import CHUNK
from images import plan, secret_scan
from images.files_entry import USER, FilesEntry, matches, never, problem_of_name
from images.plan import ImageFile, ImageFolder, LayerPlan
from images.spec import ImageSpec
from images.tarball import LayerWriter
from images.wheels.install import Files

# Bytes. A file is held in memory while it is looked through, which took 0.3 to 0.4 s for each MB on two busy cores.
LARGEST = 64 << 20
_MOVE = "change `to` of the entry"


def layer_plan(image: ImageSpec) -> LayerPlan | None:
    """The plan of an image's files layer; None where its spec names no files.

    Raises:
        UsageError: an entry names what cannot be read, git ignores or no image may hold; or two entries write one path.
    """
    files: dict[str, ImageFile] = {}
    folders: dict[str, ImageFolder] = {}
    for entry in image.files:
        uid = image.uid if entry.owner == USER else 0
        for relative, source in _sources(entry):
            path = "/".join(part for part in (entry.to.lstrip("/"), relative) if part)
            size, sha256 = _look_through(entry, relative, source)
            file = ImageFile(path, source, size, sha256, entry.mode, uid, entry.label)
            other = files.setdefault(path, file)
            if other is not file:
                raise _twice(entry, path, other.entry)
            _add_folders(entry, file, folders)
    for path in sorted(files.keys() & folders.keys()):
        raise UsageError(
            f"{files[path].entry} puts a file where {folders[path].entry} needs a folder", where=f"/{path}", fix=_MOVE
        )
    for path, file in files.items():
        for above in _above(path):
            if above in files:
                raise UsageError(
                    f"{files[above].entry} puts a file where {file.entry} needs a folder", where=f"/{above}", fix=_MOVE
                )
    for name in git.ignored(file.source for file in files.values()):
        taken = next(file for file in files.values() if file.source == paths.ROOT / name)
        what = f"{taken.entry} takes a file that git ignores: no revision would name what the image holds"
        raise UsageError(what, where=name, fix="commit it (`git add -f`), or leave it out of the entry (`exclude`)")
    return plan.files_layer(files.values(), folders.values()) if files else None


def fill(layer: LayerPlan, writer: LayerWriter) -> Files:
    """Write the files layer.

    Raises:
        BuildError: a file changed since the plan was made.
    """
    for folder in layer.folders:
        writer.folder(folder.path, mode=folder.mode, owner=folder.uid)
    for file in layer.files:
        digest = hashlib.sha256()
        try:
            with file.source.open("rb") as opened:
                writer.file(file.path, file.size, _chunks(opened, digest), mode=file.mode, owner=file.uid)
        except (FileNotFoundError, ValueError):
            raise _changed(file) from None
        if digest.hexdigest() != file.sha256:
            raise _changed(file)
    writer.end()
    # The note of a layer names what wheels brought; what is in this one stands in its plan.
    return {}


def _chunks(opened: IO[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    while chunk := opened.read(CHUNK):
        digest.update(chunk)
        yield chunk


def check_places(layer: LayerPlan, entries: Iterable[FilesEntry], base: Files, wheels: Iterable[Files]) -> None:
    """Refuse files that would replace what another layer of the image holds, or lie in a folder together with it.

    Args:
        layer: the files layer.
        entries: of `[[files]]`.
        base: what the base holds, as `of_base` has it.
        wheels: what each layer of wheels holds.

    Raises:
        BuildError: naming the entry, the path and who else holds it.
    """
    files = {file.path: file for file in layer.files}
    places = [(entry, entry.to.lstrip("/")) for entry in entries]
    for path, state, holder in _held(base, wheels):
        for entry, place in places:
            inside = path == place or path.startswith(f"{place}/")
            if inside and not (path in files and _state(files[path]) == state):
                raise BuildError(f"{entry.label} and {holder} both bring it", where=f"/{path}", fix=f"{_MOVE} ({entry.stated})")
            if place.startswith(f"{path}/") and state != _FOLDER:
                kind = state if state.startswith(("folder", "symbolic link")) else "file"
                raise BuildError(
                    f"{entry.label} needs a folder of root's with mode 0755 where {holder} brings a {kind}",
                    where=f"/{path}",
                    fix=f"{_MOVE} ({entry.stated})",
                )


_FOLDER = "folder"


def of_base(tar: Path) -> Files:
    """What the base's tar holds: the state of each path, a folder, a link, or a file with its digest and rights."""
    found: Files = {}
    with tarfile.open(tar) as archive:
        for member in archive:
            rights = "" if (member.uid, member.gid) == (0, 0) else f" of user {member.uid}"
            if member.isdir():
                plain = member.mode == 0o755 and not rights
                state = _FOLDER if plain else f"folder with mode {member.mode:04o}{rights}"
            elif member.isreg() and (file := archive.extractfile(member)):
                state = f"{hashlib.file_digest(file, 'sha256').hexdigest()} {member.mode:04o}{rights}"  # type: ignore[arg-type]
            else:
                state = "symbolic link" if member.issym() else "file"
            found[member.name.removeprefix("./").rstrip("/")] = (state, "the base")
    return found


def _held(base: Files, wheels: Iterable[Files]) -> Iterator[tuple[str, str, str]]:
    """Path, state and holder of what the layers below the files hold."""
    for path, (state, holder) in base.items():
        yield path, state, holder
    for files in wheels:
        folders: set[str] = set()
        for path, (digest, package) in files.items():
            sha256, _, executable = digest.partition("+")
            yield path, f"{sha256} {'0755' if executable else '0644'}", package
            for above in _above(path):
                if above in folders:
                    break
                folders.add(above)
                yield above, _FOLDER, package


def _state(file: ImageFile) -> str:
    return f"{file.sha256} {file.mode:04o}" + (f" of user {file.uid}" if file.uid else "")


def _above(path: str) -> Iterator[str]:
    """The folders above a path, the nearest first."""
    while path := path.rpartition("/")[0]:
        yield path


def _add_folders(entry: FilesEntry, file: ImageFile, folders: dict[str, ImageFolder]) -> None:
    """Note the folders from the file's own up to the one that the entry names."""
    place = entry.to.lstrip("/")
    for path in _above(file.path):
        if not f"{path}/".startswith(f"{place}/"):
            return
        folder = ImageFolder(path, entry.folder_mode, file.uid, entry.label)
        other = folders.setdefault(path, folder)
        if (other.mode, other.uid) != (folder.mode, folder.uid):
            what = f"{other.entry} and {entry.label} want another mode or owner for one folder"
            raise UsageError(what, where=f"/{path}", fix=f"give each a folder of its own ({entry.stated})")


def _twice(entry: FilesEntry, path: str, other: str) -> UsageError:
    what = f"{other} and {entry.label} both write it" if other != entry.label else f"{other} writes it twice"
    return UsageError(what, where=f"/{path}", fix=f"{_MOVE} ({entry.stated})")


def _changed(file: ImageFile) -> BuildError:
    return BuildError("a file changed while the image was built", where=paths.shown(file.source), fix="build again")


def _sources(entry: FilesEntry) -> list[tuple[str, Path]]:
    """The files of an entry: each with its path relative to the entry's folder, empty where the entry is a file."""
    start = paths.ROOT
    for name in entry.source.split("/"):
        # File names are bytes; settings are UTF-8, whatever the locale says.
        start = start / os.fsdecode(name.encode())
        kind = _kind(entry, start)
        if kind == stat.S_IFLNK:
            raise _refused(entry, start, "is a symbolic link", "name what it leads to")
    if kind == stat.S_IFREG:
        if entry.include or entry.exclude:
            raise UsageError(f"{entry.source} is a file", where=entry.stated, fix="leave `include` and `exclude` out")
        return [("", start)]
    if kind != stat.S_IFDIR:
        raise _refused(entry, start, "is neither a file nor a folder", "name another one")
    found = sorted(_walk(entry, start, ""))
    for pattern in entry.include:
        if not any(matches(path, (pattern,)) for path, _ in found):
            raise UsageError(f"include: {pattern!r} matches no file of {entry.source}", where=entry.stated, fix="mend it")
    if not found:
        raise UsageError(f"{entry.source} holds no file for the image", where=entry.stated, fix="take the entry out")
    return found


def _walk(entry: FilesEntry, folder: Path, above: str) -> Iterator[tuple[str, Path]]:
    try:
        names = [source.name for source in folder.iterdir()]
    except OSError as problem:
        raise _unreadable(entry, folder, problem) from None
    for native in names:
        source = folder / native
        name = os.fsencode(native).decode(errors="surrogateescape")
        path = f"{above}/{name}" if above else name
        if never(name) or matches(path, entry.exclude):
            continue
        kind = _kind(entry, source)
        if kind == stat.S_IFDIR:
            yield from _walk(entry, source, path)
            continue
        if entry.include and not matches(path, entry.include):
            continue
        wrong_name = next(filter(None, map(problem_of_name, path.split("/"))), "")
        if wrong_name:
            raise UsageError(f"{entry.label}: {wrong_name}", where=_shown(folder), fix="rename it, or `exclude` it")
        if kind != stat.S_IFREG:
            what = "is a symbolic link" if kind == stat.S_IFLNK else "is a device, a socket or a pipe"
            raise _refused(entry, source, what, "`exclude` it, or put a file in its place")
        yield path, source


def _kind(entry: FilesEntry, source: Path) -> int:
    """The kind of a file as stat(2) has it; of a link, not of what it leads to."""
    try:
        return stat.S_IFMT(source.lstat().st_mode)
    except OSError as problem:
        raise _unreadable(entry, source, problem) from None


def _look_through(entry: FilesEntry, relative: str, source: Path) -> tuple[int, str]:
    """Size and sha256 of a file without secrets."""
    try:
        # Not through a link, should one have come into its place since; and no pipe keeps us waiting.
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            if os.fstat(handle).st_size > LARGEST:
                fix = "models and data come from a registry or a volume; `exclude` it"
                raise _refused(entry, source, f"is larger than {LARGEST >> 20} MiB", fix)
            data = file.read()
    except OSError as problem:
        raise _unreadable(entry, source, problem) from None
    if secret := secret_scan.find(source.name, data):
        fix = "take it out or `exclude` the file; what others may have seen must be revoked"
        raise UsageError(f"{entry.label}: the file holds {secret.kind}", where=f"{_shown(source)}:{secret.line}", fix=fix)
    return len(data), hashlib.sha256(data).hexdigest()


def _unreadable(entry: FilesEntry, source: Path, problem: OSError) -> UsageError:
    return _refused(entry, source, f"cannot be read: {problem.strerror}", "mend `from`, or the file")


def _refused(entry: FilesEntry, source: Path, what: str, fix: str) -> UsageError:
    return UsageError(f"{entry.label}: {_shown(source)} {what}", where=entry.stated, fix=fix)


def _shown(source: Path) -> str:
    """A path for people, whatever bytes it is made of."""
    return os.fsencode(paths.shown(source)).decode(errors="backslashreplace")
