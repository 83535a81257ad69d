"""One wheel into a layer: PyPA's `installer` decides what goes where, every byte is checked against RECORD on its way.

Semantics: the binary distribution format (packaging.python.org, "Installing a wheel"), as `installer` implements it. Ours is
only the destination: a tar instead of a file system.
"""

from __future__ import annotations

import base64
import hashlib
import io
import posixpath
import stat
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO, cast

from installer import install
from installer.destinations import WheelDestination
from installer.records import Hash, RecordEntry, parse_record_file
from installer.scripts import Script
from installer.sources import WheelContentElement, WheelFile, WheelSource
from installer.utils import Scheme, construct_record_file, fix_shebang

from common.errors import BuildError, PinwheelError
from common.files import CHUNK
from images.bytecode import Compiler
from images.tarball import LayerWriteError, LayerWriter
from lockfiles import store
from lockfiles.model import Wheel

PREFIX = "opt/venv"
SITE = f"{PREFIX}/lib/python3.11/site-packages"
# "sha256 or better" (binary distribution format, "The .dist-info directory").
_ALGORITHMS = ("sha256", "sha384", "sha512")
_INTERPRETER = f"/{PREFIX}/bin/python"


# Path in the image → (sha256 of its bytes, `+x` when executable; the package that brought it), for what a layer holds.
Files = dict[str, tuple[str, str]]


class _Source(WheelFile):
    """A wheel of the store; its entries in sorted order, each checked against RECORD while it is read."""

    def __init__(self, archive: zipfile.ZipFile, wheel: Wheel, excused: frozenset[tuple[str, str]]) -> None:
        distribution, version = wheel.artifact.file.split("-")[:2]
        WheelSource.__init__(self, distribution, version)
        self._zipfile = archive
        self._wheel, self._excused = wheel, excused
        self.met: set[str] = set()

    def get_contents(self) -> Iterator[WheelContentElement]:
        """See WheelSource."""
        record_path = posixpath.join(self.dist_info_dir, "RECORD")
        entries = {}
        for info in self._zipfile.infolist():
            if info.is_dir():
                continue
            if info.filename in entries:
                raise refused(self._wheel, info.filename, "stands twice in the archive")
            entries[info.filename] = info
        records = {row[0]: row for row in parse_record_file(self.read_dist_info("RECORD").splitlines())}
        # Signatures of a RECORD cannot stand in it (same specification, "The .dist-info directory").
        unlisted = {record_path, f"{record_path}.jws", f"{record_path}.p7s"}
        for path in sorted((set(entries) ^ set(records)) - unlisted):
            raise refused(self._wheel, path, "is not in RECORD" if path in entries else "is in RECORD but not in the archive")
        for path, info in sorted(entries.items()):
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise refused(self._wheel, path, "is no regular file")
            if path == record_path:
                continue
            record = records.get(path, (path, "", ""))
            if not record[1] and path not in unlisted:
                raise refused(self._wheel, path, "has no hash in RECORD")
            with self._zipfile.open(info) as stream:
                if (self._wheel.name, path) in self._excused:
                    self.met.add(path)
                    record = (path, "", "")
                yield record, cast(BinaryIO, _Entry(stream, info.file_size, record, self._wheel)), bool(mode & 0o111)


class _Entry:
    """A file of a wheel, its size known, compared with RECORD at its end."""

    def __init__(self, stream: object, size: int, record: tuple[str, str, str], wheel: Wheel) -> None:
        self._stream = cast(BinaryIO, stream)
        self.size = size
        self._record, self._wheel = record, wheel

    def chunks(self) -> Iterator[bytes]:
        """The bytes.

        Raises:
            BuildError: they are not what RECORD says.
        """
        path, expected, size = self._record
        algorithm = expected.partition("=")[0] or "sha256"
        if algorithm not in _ALGORITHMS:
            raise refused(self._wheel, path, f"has a {algorithm} hash in RECORD, which proves nothing")
        digest = hashlib.new(algorithm)
        done = 0
        while chunk := self._stream.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if done > self.size:
                raise refused(self._wheel, path, "is longer than its archive says")
            yield chunk
        actual = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
        if expected and (actual != expected.partition("=")[2].rstrip("=") or (size and int(size) != done)):
            raise refused(self._wheel, path, "is not what RECORD says")


class _Destination(WheelDestination):
    """Where `installer` puts a wheel: into a layer."""

    def __init__(self, wheel: Wheel, writer: LayerWriter, compiler: Compiler, files: Files, dropped: frozenset[str]) -> None:
        self._wheel, self._writer, self._compiler = wheel, writer, compiler
        self._files, self._dropped = files, dropped
        name = wheel.artifact.file.partition("-")[0]
        self._schemes = {
            "purelib": SITE,
            "platlib": SITE,
            "scripts": f"{PREFIX}/bin",
            "data": PREFIX,
            "headers": f"{PREFIX}/include/site/python3.11/{name}",
        }
        self._bytecode: dict[str, bytes] = {}
        self.met: set[str] = set()

    def write_script(self, name: str, module: str, attr: str, section: str) -> RecordEntry:
        """See WheelDestination."""
        file, data = Script(name, module, attr, section).generate(_INTERPRETER, "posix")  # type: ignore[arg-type]
        return self._write(Scheme("scripts"), file, len(data), [data], executable=True)

    def write_file(self, scheme: Scheme, path: object, stream: BinaryIO, is_executable: bool) -> RecordEntry:  # noqa: FBT001
        """See WheelDestination."""
        if not isinstance(stream, _Entry):  # what installer itself adds: INSTALLER
            data = stream.read()
            return self._write(scheme, str(path), len(data), [data], executable=is_executable)
        chunks, size = stream.chunks(), stream.size
        if scheme == "scripts":
            first = next(chunks, b"")
            if first.startswith(b"#!python"):
                with fix_shebang(io.BytesIO(first + b"".join(chunks)), _INTERPRETER) as fixed:
                    data = fixed.read()
                return self._write(scheme, str(path), len(data), [data], executable=True)
            # pip makes every script executable, whatever the archive says.
            return self._write(scheme, str(path), size, _chain(first, chunks), executable=True)
        return self._write(scheme, str(path), size, chunks, executable=is_executable)

    def finalize_installation(self, scheme: Scheme, record_file_path: str, records: object) -> None:
        """See WheelDestination."""
        # As pip does: bytecode stands in RECORD by path alone, so that an uninstall finds it.
        rows = [
            (s, r) for s, r in cast("list[tuple[Scheme, RecordEntry]]", records) if self._target(s, r.path) not in self._dropped
        ]
        rows += [(scheme, RecordEntry(path, None, None)) for path in sorted(self._bytecode)]
        with construct_record_file(rows, self._prefix) as stream:
            data = stream.read()
        self._write(scheme, record_file_path, len(data), [data])
        for path, code in sorted(self._bytecode.items()):
            self._write(scheme, path, len(code), [code])

    def _write(self, scheme: Scheme, path: str, size: int, chunks: Iterable[bytes], *, executable: bool = False) -> RecordEntry:
        target = self._target(scheme, path)
        digest = hashlib.sha256()
        source: list[bytes] | None = [] if target.endswith(".py") and target.startswith(SITE) else None

        def through() -> Iterator[bytes]:
            for chunk in chunks:
                digest.update(chunk)
                if source is not None:
                    source.append(chunk)
                yield chunk

        if target in self._dropped:
            self.met.add(target)
        known = target in self._dropped or target in self._files
        if known:
            for _ in through():
                pass
        else:
            self._writer.file(target, size, through(), executable=executable)
        hashed = digest.digest()
        state = hashed.hex() + ("+x" if executable else "")
        if target not in self._dropped:
            other = self._files.setdefault(target, (state, self._wheel.name))
            if other[0] != state:
                raise conflict(target, other[1], self._wheel.name)
            if source is not None and not known:
                self._compile(scheme, path, target, b"".join(source))
        encoded = base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()
        return RecordEntry(path, Hash("sha256", encoded), size)

    def _compile(self, scheme: Scheme, path: str, target: str, source: bytes) -> None:
        if scheme not in ("purelib", "platlib"):
            return
        if code := self._compiler.compile(f"/{target}", source):
            folder, name = posixpath.split(path)
            self._bytecode[posixpath.join(folder, "__pycache__", f"{name.removesuffix('.py')}.cpython-311.pyc")] = code

    def _target(self, scheme: Scheme, path: str) -> str:
        parts = path.split("/")
        if path.startswith("/") or "\0" in path or "\\" in path or any(part in ("", ".", "..") for part in parts):
            raise refused(self._wheel, path, "leaves its folder")
        return f"{self._schemes[scheme]}/{path}"

    def _prefix(self, scheme: Scheme) -> str | None:
        folder = self._schemes[scheme]
        return None if folder == SITE else posixpath.relpath(folder, SITE) + "/"


def add(
    wheel: Wheel,
    writer: LayerWriter,
    compiler: Compiler,
    files: Files,
    *,
    dropped: frozenset[tuple[str, str]] = frozenset(),
    excused: frozenset[tuple[str, str]] = frozenset(),
) -> None:
    """Install a wheel into a layer.

    Args:
        wheel: in the store.
        writer: the layer.
        compiler: a fresh interpreter of the image.
        files: what the layer holds so far; added to.
        dropped: (package, path in the image) whose file loses to another package's.
        excused: (package, path in its wheel) whose RECORD entry is known to be wrong.

    Raises:
        LockError: the wheel's bytes are not the lock's.
        BuildError: the wheel is broken, lies about itself, or reaches outside its folder.
    """
    path = store.verified(wheel.artifact)
    mine = frozenset(place for package, place in dropped if package == wheel.name)
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            # installer warns of bytecode inside wheels and leaves it out; ours replaces it.
            warnings.simplefilter("ignore", RuntimeWarning)
            destination = _Destination(wheel, writer, compiler, files, mine)
            source = _Source(archive, wheel, excused)
            install(source, destination, {"INSTALLER": b"pinwheel\n"})
            unmet = sorted((mine - destination.met) | ({p for n, p in excused if n == wheel.name} - source.met))
            if unmet:
                raise BuildError(
                    f"{wheel.name} has no such conflict or wrong RECORD", where=unmet[0], fix="take it out of image.toml"
                )
    except (PinwheelError, LayerWriteError):
        raise
    except Exception as problem:  # noqa: BLE001 - a hostile archive makes zipfile, csv and installer raise anything
        raise BuildError(
            f"{wheel.artifact.file} is a broken wheel: {problem}", where=str(path), fix="report it to its authors"
        ) from None


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def refused(wheel: Wheel, path: str, why: str) -> BuildError:
    """The error for a file of a wheel that cannot be trusted."""
    return BuildError(f"{wheel.artifact.file}: {path} {why}", fix="the wheel is broken or hostile; pin another version")


def conflict(path: str, *packages: str) -> BuildError:
    """The error for a path that two packages claim with different bytes."""
    return BuildError(
        f"{' and '.join(sorted(packages))} install different bytes at one path",
        where=path,
        fix="say in image.toml which stays: [[conflicts]] path, keep, drop, reason",
    )
