"""The ordinary way: the Dockerfile that the project's first description had, repaired just enough to build.

Three repairs: the base is ours instead of `debian:12` with apt; the wheels are the locked ones from a folder instead of pins
that do not resolve; pip installs into a virtual environment, since Debian 12 refuses it the system's (PEP 668). All wheels are
still one `RUN pip install`, and so one layer.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pip

from common.files import write_whole
from images import reference
from lockfiles import store
from lockfiles.model import SetLock
from oci.layout import Layout

DOCKERFILE = """\
FROM base

# There is no ensurepip in the base: pip runs from the build context.
RUN --mount=type=bind,target=/context \\
    python3.11 -m venv --without-pip /opt/venv && \\
    PYTHONPATH=/context/pip /opt/venv/bin/python -m pip install --no-cache-dir \\
      --no-index --no-deps --find-links /context/wheels --requirement /context/requirements.txt

ENV PATH=/opt/venv/bin:$PATH
WORKDIR /app
ENTRYPOINT ["/bin/bash"]
"""


def lay_out(lock: SetLock, folder: Path) -> None:
    """Write the build context: Dockerfile, requirements, pip, and the wheels as hard links into the store.

    Raises:
        LockError: a wheel is not in the store, or its bytes are not the lock's.
    """
    (folder / "wheels").mkdir(parents=True)
    write_whole(folder / "Dockerfile", DOCKERFILE)
    shutil.copytree(Path(pip.__file__).parent, folder / "pip" / "pip", ignore=shutil.ignore_patterns("__pycache__"))
    for wheel in lock.wheels:
        os.link(store.verified(wheel.artifact), folder / "wheels" / wheel.artifact.file)
    write_whole(folder / "requirements.txt", "".join(f"{wheel.name}=={wheel.version}\n" for wheel in lock.wheels))


def command(folder: Path, layout: Layout, *output: str) -> list[str | Path]:
    """The build as people type it, with the base out of a layout.

    Args:
        folder: the build context.
        layout: holds the base image.
        output: where the image goes, in buildx's flags.

    Raises:
        BuildError: the layout holds no base.
        MissingEnvironmentError: buildx is not installed.
    """
    argv: list[str | Path] = [reference.buildx(), "build", "--progress=plain", "--network=none"]
    return [*argv, "--build-context", reference.base(layout), *output, folder]
