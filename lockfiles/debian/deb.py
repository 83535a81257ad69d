"""Whether a .deb stays inside what it is unpacked below, and is what the lock names.

Read before mmdebstrap is: it unpacks the essential packages with tar from outside the new root, as root, where a link in one
package would lead the files of another onto this machine. Format: deb(5), deb-control(5), and dpkg-deb's own reader.

What this does not do: a package's maintainer scripts run as root when the base is laid out. They are trusted as Debian's
archive is, by its signature when locking and by the lock's sha256 from then on.
"""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from common import child_environment
from common.errors import BuildError, LockError, PinwheelError
from common.files import CHUNK
from common.run import run, which
from lockfiles.model import Deb

_KINDS = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE)
# Bytes; a tenth of it is more than any package of the base holds.
_LARGEST = 4 << 30
# What apt's index of packages adds to a control file; in one it would speak for another file.
_INDEX_FIELDS = ("filename", "size", "sha256", "sha512", "md5sum", "sha1")


@dataclass(frozen=True, slots=True)
class Contents:
    """What a deb unpacks to.

    Attributes:
        deb: the package.
        control: its control file.
        paths: of all members, relative to the root.
        links: of those, the symbolic links.
    """

    deb: Deb
    control: str
    paths: tuple[str, ...]
    links: frozenset[str]


def read(deb: Deb, file: Path) -> Contents:
    """Read a deb and refuse what no package of Debian's holds.

    Args:
        deb: as the lock has it.
        file: its verified bytes.

    Raises:
        LockError: it is another package than the lock says.
        BuildError: it is broken, or a member reaches outside.
    """
    control = run(["dpkg-deb", "-f", file], error=BuildError, what=f"reading {deb.artifact.file}").stdout.strip()
    fields: dict[str, str] = {}
    for line in control.splitlines():
        name, colon, value = line.partition(":")
        name = name.strip().lower()
        if not line or (not line[0].isspace() and (not colon or name in fields or name in _INDEX_FIELDS)):
            raise _refused(deb, "control", f"has a line that does not belong there: {line[:80]!r}")
        if not line[0].isspace():
            fields[name] = value.strip()
    stated = (fields.get("package"), fields.get("version"), fields.get("architecture"))
    if stated != (deb.name, deb.version, deb.arch):
        words = " ".join(part or "nothing" for part in stated)
        raise LockError(
            f"{deb.artifact.file}: control says {words!r}, the lock {deb.name} {deb.version} {deb.arch}",
            fix="run `invoke lock`",
        )
    argv = [which("dpkg-deb", fix="run `invoke engine --install`"), "--fsys-tarfile", str(file)]
    pipe, own = subprocess.PIPE, child_environment.chosen("dpkg-deb")
    with subprocess.Popen(argv, env=own, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
        stream = _Tail(cast("IO[bytes]", process.stdout))
        try:
            paths, links = _members(deb, stream)
        except (tarfile.TarError, EOFError, ValueError, OSError) as problem:
            process.kill()
            raise _refused(deb, "data.tar", f"cannot be read: {problem}") from None
        except PinwheelError:
            process.kill()
            raise
        message = cast("IO[bytes]", process.stderr).read().decode(errors="replace").strip()
        if process.wait():
            raise _refused(deb, "data.tar", f"cannot be read: {message}")
    return Contents(deb, control, paths, links)


def check_together(debs: Iterable[Contents]) -> None:
    """Refuse debs of which one would write through another's symbolic link.

    Raises:
        BuildError: naming both and the path.
    """
    debs = tuple(debs)
    links = {link: contents.deb for contents in debs for link in contents.links}
    for contents in debs:
        for path in contents.paths:
            above = path
            while above := above.rpartition("/")[0]:
                if above in links:
                    raise _refused(
                        contents.deb, path, f"would be written through the symbolic link /{above} of {links[above].name}"
                    )


def _members(deb: Deb, stream: _Tail) -> tuple[tuple[str, ...], frozenset[str]]:
    paths: list[str] = []
    links: set[str] = set()
    files: set[str] = set()
    total = 0
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", errorlevel=2, encoding="utf-8") as archive:
        for member in archive:
            path, total = _plain(deb, member.name), total + member.size
            if total > _LARGEST:
                raise _refused(deb, path, "would unpack to more than any package holds")
            if member.type not in _KINDS or member.pax_headers:
                raise _refused(deb, path, "is no file, folder or link")
            if member.islnk() and _plain(deb, member.linkname) not in files:
                raise _refused(deb, path, f"is a hard link to {member.linkname!r}, which is no file of the package")
            if path in links or (path in files and not member.isreg()):
                raise _refused(deb, path, "stands twice in the package, once as a link")
            if member.issym():
                links.add(path)
            elif not member.isdir():
                files.add(path)
            paths.append(path)
        end = archive.offset
    # A reader that goes on after the end mark, as GNU tar does after one zero block, must find nothing.
    if any(chunk.strip(b"\0") for chunk in stream.rest(end)):
        raise _refused(deb, "data.tar", "goes on after its end")
    return tuple(paths), frozenset(links)


def _plain(deb: Deb, name: str) -> str:
    path = name.removeprefix("./").removesuffix("/")
    if path in (".", ""):
        return ""
    if path.startswith("/") or not path.isprintable() or any(part in ("", ".", "..") for part in path.split("/")):
        raise _refused(deb, ascii(name)[1:-1], "leaves the root")
    return path


def _refused(deb: Deb, path: str, why: str) -> BuildError:
    return BuildError(f"{deb.artifact.file}: {path} {why}", fix="the package is broken or hostile; lock another version")


class _Tail:
    """A stream that remembers what it gave last: tarfile reads it in blocks, past the end of the archive."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._last, self._at = stream, b"", 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._last, self._at = (self._last + data)[-(1 << 16) :], self._at + len(data)
        return data

    def rest(self, start: int) -> Iterator[bytes]:
        """All bytes from an offset on that was passed just now."""
        yield self._last[len(self._last) - (self._at - start) :]
        while chunk := self._stream.read(CHUNK):
            yield chunk
