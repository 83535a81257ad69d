"""The air-gap mirror: a folder that any web server can serve, and that pip and uv read as it is.

    sha256/<sha256>/<file>          the bytes
    simple/<project>/index.html     where each project's files are (PEP 503), so `--index-url file://DIR/simple` works

`write` makes one from the store; `places` is the one that PINWHEEL_MIRROR names.
"""

from __future__ import annotations

import errno
import html
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

from common import console
from common.errors import LockError, MissingEnvironmentError, UsageError
from common.files import CHUNK, FULL, replacing, sha256_file, write_whole
from lockfiles.model import Artifact
from lockfiles.store.transfer import Place

VARIABLE = "PINWHEEL_MIRROR"
_FILES, _INDEX = "sha256", "simple"


def places() -> tuple[Place, ...]:
    """The mirror that the user has set, if any; asked before all others.

    Raises:
        MissingEnvironmentError: it is no folder that holds a mirror.
        UsageError: it is neither a folder nor an http address.
    """
    setting = os.environ.get(VARIABLE, "")
    if not setting:
        return ()
    if setting.startswith(("http://", "https://")):
        base = setting.rstrip("/")

        def shown(artifact: Artifact) -> str:
            return f"{VARIABLE}: {_inside(artifact)}"

        return (Place(lambda a: f"{base}/{quote(_inside(a))}", shown, f"check the network and {VARIABLE}", _ALTERED),)
    home = folder()
    assert home is not None  # noqa: S101 - it is no http address
    if not (home / _FILES).is_dir():
        raise MissingEnvironmentError(
            f"{VARIABLE} names no mirror", where=str(home), fix="write one with `invoke fetch --to DIR`"
        )

    def locate(artifact: Artifact) -> str:
        file = home / _inside(artifact)
        return file.as_uri() if file.is_file() else ""

    return (Place(locate, lambda a: str(home / _inside(a)), f"check {VARIABLE}", _ALTERED),)


_ALTERED = "the mirror's file is damaged; write it again with `invoke fetch --to DIR`"


def folder() -> Path | None:
    """The mirror that the user has set, if it is one on this machine."""
    return folder_of(VARIABLE)


def folder_of(variable: str) -> Path | None:
    """The folder that a variable names, as a path or a file:// address; None for an http address or nothing.

    Raises:
        UsageError: it is neither.
    """
    setting = os.environ.get(variable, "")
    if not setting or setting.startswith(("http://", "https://")):
        return None
    if "://" not in setting or setting.startswith("file://"):
        # Not an address; or `~` of nobody.
        with suppress(ValueError, RuntimeError):
            return Path(unquote(urlsplit(setting).path) if "://" in setting else setting).expanduser().absolute()
    raise UsageError(f"{variable} names neither a folder nor an http address", fix="give one of them")


def http_host() -> tuple[str | None, int | None]:
    """Host and port of the mirror that the user has set, if it is one on the network."""
    parts = urlsplit(os.environ.get(VARIABLE, ""))
    with suppress(ValueError):  # no such port: asking it is refused where it is asked
        if parts.scheme in {"http", "https"}:
            return parts.hostname, parts.port
    return None, None


def write(target: Path, artifacts: Iterable[Artifact], source: Callable[[Artifact], Path]) -> tuple[int, int]:
    """Write a mirror, or add to one; what is there and good stays as it is.

    Args:
        target: its folder.
        artifacts: what it must hold.
        source: gives the verified file of one; may raise LockError.

    Returns:
        how many files were added or mended, and their bytes.

    Raises:
        LockError: the source lacks a file, or its bytes are not the lock's.
        MissingEnvironmentError: the disk is full.
    """
    wanted = sorted({a.sha256: a for a in artifacts}.values(), key=lambda a: (-a.size, a.sha256))
    try:
        with (
            console.Bar(f"writing the mirror, {len(wanted)} files", sum(a.size for a in wanted)) as bar,
            ThreadPoolExecutor(os.cpu_count()) as pool,
        ):
            added = []
            try:
                for artifact, new in zip(wanted, pool.map(lambda a: _place(target, a, source), wanted), strict=True):
                    bar.advance(artifact.size)
                    added += [artifact.size] if new else []
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        _write_index(target)
    except OSError as problem:
        if problem.errno in FULL:
            raise MissingEnvironmentError(
                "no space left for the mirror", where=str(target), fix="free some, or name a folder on another disk"
            ) from None
        raise
    return len(added), sum(added)


def _place(target: Path, artifact: Artifact, source: Callable[[Artifact], Path]) -> bool:
    """Put one file there; whether it had to be."""
    file = target / _inside(artifact)
    try:
        if sha256_file(file).removeprefix("sha256:") == artifact.sha256:
            return False
        # Not in place: it may be a link to the store's own file.
        file.unlink()
    except FileNotFoundError:
        pass
    found = source(artifact)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(found, file)
    except FileExistsError:
        # Two at once: the other was quicker, with the same bytes.
        return False
    except OSError as problem:
        if problem.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}:
            raise
        with found.open("rb") as whole, replacing(file, 0o444) as out:
            while chunk := whole.read(CHUNK):
                out.write(chunk)
        if sha256_file(file).removeprefix("sha256:") != artifact.sha256:
            file.unlink()
            raise LockError(
                f"{artifact.file} was written, and reads otherwise", where=str(file), fix="check the disk"
            ) from None
    return True


def _write_index(target: Path) -> None:
    """Write the simple index of every wheel and sdist the mirror holds, from earlier locks too."""
    projects: dict[str, list[tuple[str, str]]] = {}
    for file in sorted((target / _FILES).glob("*/*")):
        if project := _project(file.name):
            projects.setdefault(project, []).append((file.name, file.parent.name))
    for project, files in projects.items():
        links = [(f"../../{_FILES}/{digest}/{quote(name)}#sha256={digest}", name) for name, digest in sorted(files)]
        _write_page(target / _INDEX / project / "index.html", f"Links for {project}", links)
    _write_page(target / _INDEX / "index.html", "Simple index", [(f"{name}/", name) for name in sorted(projects)])


def _write_page(file: Path, title: str, links: list[tuple[str, str]]) -> None:
    anchors = "".join(f'<a href="{html.escape(href)}">{html.escape(text)}</a><br>\n' for href, text in links)
    head = (
        f'<!DOCTYPE html>\n<html>\n<head><meta name="pypi:repository-version" content="1.0"><title>{html.escape(title)}</title>'
    )
    page = f"{head}</head>\n<body>\n{anchors}</body>\n</html>\n"
    if not file.is_file() or file.read_text() != page:
        write_whole(file, page)


def _project(file: str) -> str:
    """The project a wheel or sdist is of; empty for other files."""
    try:
        if file.endswith(".whl"):
            return parse_wheel_filename(file)[0]
        return parse_sdist_filename(file)[0] if file.endswith((".tar.gz", ".zip")) else ""
    except (InvalidWheelFilename, InvalidSdistFilename):
        return ""


def _inside(artifact: Artifact) -> str:
    # The name comes from an index; it must not lead out of the folder.
    if artifact.file != Path(artifact.file).name:
        raise LockError(f"{artifact.file!r} is no file name", where=f"sha256 {artifact.sha256}", fix="run `invoke lock`")
    return f"{_FILES}/{artifact.sha256}/{artifact.file}"
