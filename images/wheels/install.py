"""One wheel into a layer: PyPA's `installer` decides what goes where, every byte is checked against RECORD on its way.

Semantics: the binary distribution format (packaging.python.org, "Installing a wheel"), as `installer` implements it. Ours is
only the destination: a tar instead of a file system.
"""

from __future__ import annotations

import hashlib
import posixpath
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

from installer import install
from installer.destinations import WheelDestination
from installer.records import Hash, RecordEntry
from installer.scripts import Script
from installer.utils import Scheme, construct_record_file

from common.errors import BuildError, MissingEnvironmentError, PinwheelError
from images.spec import Rules
from images.tarball import LayerWriteError, LayerWriter
from images.wheels import conformance
from images.wheels.bytecode import Compiler
from images.wheels.conformance import refused
from images.wheels.source import Entry, Source, encoded
from images.wheels.zip_archive import Archive, ArchiveError
from lockfiles import store
from lockfiles.model import Wheel

PREFIX = "opt/venv"
SITE = f"{PREFIX}/lib/python3.11/site-packages"
_INTERPRETER = f"/{PREFIX}/bin/python"
_SHEBANG = f"#!{_INTERPRETER}\n".encode()
# Bytes. It is held in memory for the interpreter; the largest in use has 4 MB.
_LARGEST_SOURCE = 32 << 20


# Path in the image → (sha256 of its bytes, `+x` when executable; the package that brought it), for what a layer holds.
Files = dict[str, tuple[str, str]]


# The kernel reads no more of a first line (binfmt_script, BINPRM_BUF_SIZE).
_LONGEST_SHEBANG = 256


class Destination(WheelDestination):
    """Where `installer` puts a wheel: into a layer."""

    def __init__(self, wheel: Wheel, writer: LayerWriter, compiler: Compiler, files: Files, rules: Rules) -> None:
        self._wheel, self._writer, self._compiler = wheel, writer, compiler
        self._files, self._dropped = files, rules.dropped
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
        if not isinstance(stream, Entry):  # what installer itself adds: INSTALLER
            data = stream.read()
            return self._write(scheme, str(path), len(data), [data], executable=is_executable)
        chunks, size = stream.chunks(), stream.size
        if scheme == "scripts":
            first = next(chunks, b"")
            while b"\n" not in first and len(first) < _LONGEST_SHEBANG and (more := next(chunks, b"")):
                first += more
            if first.startswith(b"#!python"):
                line, end, rest = first.partition(b"\n")
                size += len(_SHEBANG) - len(line) - len(end)
                return self._write(scheme, str(path), size, chain([_SHEBANG, rest], chunks), executable=True)
            # As uv does, whatever the archive says: a script is there to be run.
            return self._write(scheme, str(path), size, chain([first], chunks), executable=True, entry=stream)
        return self._write(scheme, str(path), size, chunks, executable=is_executable, entry=stream)

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

    def _write(
        self,
        scheme: Scheme,
        path: str,
        size: int,
        chunks: Iterable[bytes],
        *,
        executable: bool = False,
        entry: Entry | None = None,
    ) -> RecordEntry:
        """Write one file; of an entry as it stands in the wheel, the hash is known when it was read."""
        target = self._target(scheme, path)
        digest = hashlib.sha256()
        source: list[bytes] | None = [] if target.endswith(".py") and target.startswith(SITE) else None

        def through() -> Iterator[bytes]:
            for chunk in chunks:
                if entry is None:
                    digest.update(chunk)
                if source is not None:
                    source.append(chunk)
                yield chunk

        if target in self._dropped:
            self.met.add(target)
        known = target in self._dropped or target in self._files
        if source is not None and size > _LARGEST_SOURCE:
            raise refused(self._wheel, path, "is too large a module to be compiled")
        if known:
            for _ in through():
                pass
        else:
            self._check_free(target)
            self._writer.file(target, size, through(), mode=0o755 if executable else 0o644)
        hashed = entry.sha256 if entry else digest.digest()
        state = hashed.hex() + ("+x" if executable else "")
        if target not in self._dropped:
            other = self._files.setdefault(target, (state, self._wheel.name))
            if other[0] != state:
                raise conflict(target, other[1], self._wheel.name)
            if source is not None and not known:
                self._compile(scheme, path, target, b"".join(source))
        return RecordEntry(path, Hash("sha256", encoded(hashed)), size)

    def _compile(self, scheme: Scheme, path: str, target: str, source: bytes) -> None:
        if scheme not in ("purelib", "platlib"):
            return
        if code := self._compiler.compile(f"/{target}", source):
            folder, name = posixpath.split(path)
            self._bytecode[posixpath.join(folder, "__pycache__", f"{name.removesuffix('.py')}.cpython-311.pyc")] = code

    def _target(self, scheme: Scheme, path: str) -> str:
        target = f"{self._schemes[scheme]}/{path}"
        conformance.check_target(self._wheel, target, PREFIX, SITE)
        return target

    def _check_free(self, target: str) -> None:
        """Refuse a file where a folder is, and below a file: unpacked, one of the two would be lost."""
        if self._writer.has_folder(target):
            raise refused(self._wheel, target, "is a folder of another package's")
        above = target.rpartition("/")[0]
        while above and not self._writer.has_folder(above):
            if above in self._files:
                raise conflict(above, self._files[above][1], self._wheel.name)
            above = above.rpartition("/")[0]

    def _prefix(self, scheme: Scheme) -> str | None:
        folder = self._schemes[scheme]
        return None if folder == SITE else posixpath.relpath(folder, SITE) + "/"


def add(
    wheel: Wheel,
    writer: LayerWriter,
    compiler: Compiler,
    files: Files,
    rules: Rules | None = None,
) -> None:
    """Install a wheel into a layer.

    Args:
        wheel: in the store.
        writer: the layer.
        compiler: a fresh interpreter of the image.
        files: what the layer holds so far; added to.
        rules: what the image spec says of this wheel's files.

    Raises:
        LockError: the wheel's bytes are not the lock's.
        BuildError: the wheel is broken, lies about itself, or reaches outside its folder.
        MissingEnvironmentError: it cannot be read.
    """
    path, rules = store.path(wheel.artifact), rules or Rules()
    try:
        with store.opened(wheel.artifact) as file, warnings.catch_warnings():
            # installer warns of bytecode inside wheels and leaves it out; ours replaces it.
            warnings.simplefilter("ignore", RuntimeWarning)
            destination = Destination(wheel, writer, compiler, files, rules)
            source = Source(Archive(file), wheel, rules)
            install(source, destination, {"INSTALLER": b"pinwheel\n"})
            if unmet := sorted((rules.dropped | rules.excused | rules.left_out) - destination.met - source.met):
                fix = "take it out of the spec, images/*.toml"
                raise BuildError(f"{wheel.artifact.file} holds nothing like that", where=unmet[0], fix=fix)
    except (PinwheelError, LayerWriteError):
        raise
    except OSError as problem:
        said = f"{wheel.artifact.file} cannot be read from the store: {problem.strerror}"
        raise MissingEnvironmentError(said, where=str(path), fix="look at its permissions and at the disk") from None
    except ArchiveError as problem:
        if problem.path:
            raise refused(wheel, problem.path, problem.why) from None
        raise _broken(wheel, path, problem) from None
    except Exception as problem:  # noqa: BLE001 - a hostile archive makes zipfile, csv and installer raise anything
        raise _broken(wheel, path, problem) from None


def _broken(wheel: Wheel, path: Path, problem: Exception) -> BuildError:
    said = conformance.shown(" ".join(str(problem).split()) or type(problem).__name__)
    return BuildError(f"{wheel.artifact.file} is a broken wheel: {said}", where=str(path), fix="report it to its authors")


def conflict(path: str, *packages: str) -> BuildError:
    """The error for a path that two packages claim with different bytes, or one by two of its schemes."""
    names = set(packages)
    return BuildError(
        f"{' and '.join(sorted(names))} install{'s' * (len(names) == 1)} different bytes at one path",
        where=path,
        fix="say in image.toml which stays: [[conflicts]] path, keep, drop, reason"
        if len(names) > 1
        else "the wheel is broken; pin another version",
    )
