"""A program of its own, run by the base's Python in a closed room: unpacks the sdist `/given/<file>`, does one step with it.

`read` writes what pyproject.toml declares that building needs; `ask` what the backend asks for beyond that; `build` the wheel.
Each leaves one file in `/out`. Only the standard library of Python 3.11.2.
"""

from __future__ import annotations

import importlib
import json
import os
import posixpath
import stat
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

_OUT, _SOURCE = Path("/out"), Path("/source")
# Without a [build-system], or without a backend in it (PEP 517, "Build system requirements"; PEP 518).
_LEGACY = {"requires": ["setuptools >= 40.8.0"], "build-backend": "setuptools.build_meta:__legacy__"}


class RefusedError(Exception):
    """The archive is broken, or no sdist."""


def main() -> None:
    """Do the step that is asked for."""
    step, archive = sys.argv[1:]
    del sys.argv[1:]
    try:
        top = unpack(Path("/given", archive), _SOURCE)
        system = declared(top)
    except (RefusedError, tarfile.TarError, zipfile.BadZipFile, EOFError, tomllib.TOMLDecodeError, UnicodeError) as problem:
        # tarfile names each form that it tried on a line of its own.
        sys.exit(f"a broken or hostile archive: {' '.join(str(problem).split())}")
    if step == "read":
        (_OUT / "system.json").write_text(json.dumps(system["requires"]))
        return
    os.chdir(top)
    backend = load(system, top)
    if step == "build":
        backend.build_wheel(str(_OUT))
        return
    hook = getattr(backend, "get_requires_for_build_wheel", None)
    (_OUT / "requires.json").write_text(json.dumps(list(hook() if hook else [])))


def unpack(archive: Path, target: Path) -> Path:
    """Unpack an sdist, .tar.gz or .zip; returns its one top folder.

    Modes become 0755 or 0644 and times SOURCE_DATE_EPOCH, in both forms.
    """
    if archive.suffix == ".zip":
        _unpack_zip(archive, target)
    else:
        _unpack_tar(archive, target)
    top = list(target.iterdir())
    if len(top) != 1 or not top[0].is_dir():
        raise RefusedError(f"{len(top)} entries at the top, where one folder belongs (PEP 517)")
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    for path in sorted(target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    return top[0]


def _unpack_tar(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as opened:
        for member in opened:
            _check(member.name)
            if member.issym():
                _check(posixpath.join(posixpath.dirname(member.name), member.linkname), link=member)
            elif member.islnk():
                _check(member.linkname, link=member)
            elif not (member.isreg() or member.isdir()):
                raise RefusedError(f"{member.name} is a device or a pipe")
            # PEP 517 speaks of no rights; a folder must be writable for what comes below it.
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            opened.extract(member, target, set_attrs=not member.issym())


def _unpack_zip(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            _check(info.filename)
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise RefusedError(f"{info.filename} is a link or a device")
            made = Path(opened.extract(info, target))
            if mode & 0o100:
                made.chmod(0o755)


def _check(name: str, link: tarfile.TarInfo | None = None) -> None:
    """Refuse what leaves the folder it is unpacked into."""
    absolute = name.startswith("/") or (link is not None and link.linkname.startswith("/"))
    # Windows' separators are unpacked as part of a name; nobody means that.
    if absolute or "\\" in name or posixpath.normpath(name).split("/")[0] == ".." or (not link and ".." in name.split("/")):
        shown = f"{link.name} → {link.linkname}" if link else name
        raise RefusedError(f"{shown!r} leads outside")


def declared(top: Path) -> dict[str, Any]:
    """The build system of a source tree: `requires`, `build-backend` and `backend-path`."""
    file = top / "pyproject.toml"
    system = tomllib.loads(file.read_text(encoding="utf-8")).get("build-system") if file.is_file() else None
    if system is None:
        return _LEGACY
    requires = system.get("requires") if isinstance(system, dict) else None
    if not isinstance(requires, list) or not all(isinstance(text, str) for text in requires):
        raise RefusedError("[build-system] of its pyproject.toml has no list `requires` (PEP 518)")
    return {"build-backend": _LEGACY["build-backend"], **system}


def load(system: dict[str, Any], top: Path) -> Any:
    """The backend's object (PEP 517, "build-backend" and "backend-path")."""
    sys.path[:0] = [str(top / path) for path in system.get("backend-path", [])]
    module, _, attribute = system["build-backend"].partition(":")
    backend = importlib.import_module(module)
    for part in filter(None, attribute.split(".")):
        backend = getattr(backend, part)
    return backend


if __name__ == "__main__":
    main()
