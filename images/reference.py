"""The reference: an image built the ordinary way, by BuildKit and uv, from `images/Dockerfile`.

It is the oracle that the direct builder is compared with, and what `invoke bench build` measures it against. No image that is
proven or pushed comes from here.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from uv import find_uv_bin

from common import paths, tools
from common.engine_address import INSTALL
from common.errors import BuildError, LockError, MissingEnvironmentError
from images import config
from images.files_entry import FilesEntry
from images.spec import ImageSpec
from lockfiles import store
from lockfiles.debian.rootfs import EPOCH
from lockfiles.model import SetLock, Wheel
from oci.layout import Layout

# Which wheels share a stage of the Dockerfile, and so a layer: the first pattern that a name matches.
_GROUPS = (
    ("torch", "torch"),
    ("cublas", "nvidia-cublas*"),
    ("cudnn", "nvidia-cudnn*"),
    ("nvidia", "nvidia-*"),
    ("vllm", "vllm*"),
)
_LARGE = 8_000_000


def command(
    image: ImageSpec,
    folder: Path,
    layout: Layout,
    output: str,
    *,
    no_cache: bool = False,
    labels: Mapping[str, str] | None = None,
) -> list[str | Path]:
    """The program that builds the reference of an image, with its arguments.

    Args:
        image: whose target of the Dockerfile is built.
        folder: the build context; see `context`.
        layout: holds the base image, as a build leaves it.
        output: as buildx's `--output` takes it: `type=oci,dest=FILE`, `type=docker,name=NAME` (into the engine),
            `type=tar,dest=FILE` (`-`: to standard output), or `type=cacheonly`.
        no_cache: whether every step runs again.
        labels: of the image.

    Raises:
        BuildError: the layout holds no base.
        MissingEnvironmentError: buildx is not installed.
    """
    argv: list[str | Path] = [buildx(), "build", "--progress=plain", "--provenance=false", "--network=none"]
    argv += ["--file", paths.IMAGES / "Dockerfile", "--target", image.role, "--output", output]
    argv += ["--build-context", base(layout)]
    argv.append(f"--build-arg=SOURCE_DATE_EPOCH={EPOCH}")
    argv += [f"--label={name}={value}" for name, value in sorted((labels or {}).items())]
    return [*argv, *(["--no-cache"] if no_cache else []), folder]


@contextmanager
def context(lock: SetLock, files: Iterable[FilesEntry] = ()) -> Iterator[Path]:
    """The build context: uv, per group a folder of its wheels under their right names and their requirements, and our files.

    The wheels are hard links into the store, beside which the folder lies; it is removed at the end. `files/` holds, under
    their paths in the repository, whole copies of the folders and files that the entries name: which of them go into the image,
    where and with which rights is the Dockerfile's part, so that it is said twice and compared.

    Args:
        lock: the wheels.
        files: of the image's spec.

    Raises:
        LockError: a wheel is not in the store.
    """
    with tempfile.TemporaryDirectory(dir=paths.cache(), prefix=".reference-") as scratch:
        folder = Path(scratch)
        (folder / "bin").mkdir()
        shutil.copy(find_uv_bin(), folder / "bin" / "uv")
        for group, wheels in _grouped(lock).items():
            (folder / group).mkdir()
            for wheel in wheels:
                if not store.has(wheel.artifact):
                    raise LockError(f"{wheel.artifact.file} is not in the store", fix="run `invoke fetch`")
                # Its bytes are checked by uv.
                os.link(store.path(wheel.artifact), folder / group / wheel.artifact.file)
            lines = [f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.artifact.sha256}\n" for wheel in wheels]
            (folder / group / "requirements.txt").write_text("".join(lines))
        for source in sorted({entry.source for entry in files}):
            original, copy = paths.ROOT / source, folder / "files" / source
            copy.parent.mkdir(parents=True, exist_ok=True)
            if original.is_dir():
                shutil.copytree(original, copy, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copy(original, copy)
        yield folder


def buildx() -> str:
    """The path of BuildKit's client.

    Raises:
        MissingEnvironmentError: it is not installed.
    """
    places = os.pathsep.join((tools.PLUGINS, str(Path.home() / ".docker/cli-plugins"), os.environ.get("PATH", "")))
    found = shutil.which("docker-buildx", path=places)
    if found is None:
        raise MissingEnvironmentError("docker-buildx is not installed", fix=INSTALL)
    return found


def _grouped(lock: SetLock) -> dict[str, list[Wheel]]:
    groups: dict[str, list[Wheel]] = {name: [] for name in (*(name for name, _ in _GROUPS), "large", "small")}
    for wheel in lock.wheels:
        size = "large" if wheel.artifact.size >= _LARGE else "small"
        groups[next((name for name, pattern in _GROUPS if fnmatch.fnmatch(wheel.name, pattern)), size)].append(wheel)
    return groups


def base(layout: Layout) -> str:
    """BuildKit's name of the base image in a layout.

    Raises:
        BuildError: it holds none.
    """
    if digest := layout.named(config.BASE):
        return f"base=oci-layout://{layout.root}@{digest}"
    raise BuildError("the layout holds no base image", where=paths.shown(layout.root), fix="run `invoke build` first")
