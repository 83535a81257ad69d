"""Who builds the same image of the same locked wheels: the ordinary Dockerfile, the reference Dockerfile, and `invoke build`.

All three work in the scratch checkout, on the wheels of its store, with the base image laid out before.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from bench.images import measure, ordinary
from bench.images.engine import Engine, Registry
from bench.images.measure import Usage
from common import paths
from common.errors import BuildError, RegistryError
from common.run import run
from images import receipt, reference, spec
from lockfiles import lockfile
from oci.layout import Layout


class Contender(Protocol):
    """One way to build an image."""

    @property
    def name(self) -> str:
        """For tables."""

    def build(self) -> Usage:
        """Build from the locks as they are now, with what is left of builds before."""

    def push(self, registry: Registry) -> str:
        """Push what was built last; returns its reference."""


@dataclass(frozen=True, slots=True)
class Product:
    """`invoke build`, as a user starts it.

    Attributes:
        role: the image.
        folder: for the log.
    """

    role: str
    folder: Path
    name = "(c) `invoke build`"

    def reset(self) -> None:
        """Forget all builds."""
        shutil.rmtree(paths.dist(), ignore_errors=True)

    def build(self, **env: str) -> Usage:
        """See Contender."""
        # `invokew` takes no module from PYTHONPATH, which a profile needs.
        program = [sys.executable, "-m", "invoke"] if "PYTHONPATH" in env else [paths.ROOT / "invokew"]
        return measure.run(
            [*program, "build", "--image", self.role],
            log=self.folder / "product.log",
            disk=measure.folders(paths.dist(), Path(os.environ["TMPDIR"])),
            cwd=paths.ROOT,
            env=env,
        )

    def push(self, registry: Registry) -> str:
        """See Contender."""
        # The images alone: proof is no part of what the others send, and needs a key.
        send = "import sys; from registry.push import push; push(sys.argv[1], frozenset())"
        # Its folders are the bench's own, which children are not told by themselves.
        own = {name: value for name, value in os.environ.items() if name.startswith("PINWHEEL_")}
        run([sys.executable, "-c", send, registry.address], cwd=paths.ROOT, error=RegistryError, what="the push", env=own)
        (image,) = receipt.read().images
        return f"{registry.address}/{image.name}:{image.version}"


class _Dockerfile:
    """What both Dockerfiles have in common: a context that keeps its place, an engine that keeps its cache."""

    def __init__(self, role: str, engine: Engine, base: Layout, folder: Path) -> None:
        self._role, self._engine, self._base, self._folder = role, engine, base, folder
        # BuildKit knows a context by where it lies, and asks only for what changed there.
        self._context = folder / "context"

    @property
    def _tag(self) -> str:
        return f"bench/{self._role}:latest"

    def warm(self) -> None:
        """Bring the base into BuildKit's cache, as an engine holds the base of most builds."""
        shutil.rmtree(self._context, ignore_errors=True)
        self._context.mkdir()
        (self._context / "Dockerfile").write_text("FROM base\nRUN true\n")
        self._run(ordinary.command(self._context, self._base, "--output", "type=cacheonly"))

    def push(self, registry: Registry) -> str:
        """See Contender."""
        reference = f"{registry.address}/{self._role}"
        self._engine.push(self._tag, reference, "latest")
        return f"{reference}:latest"

    def _run(self, argv: Sequence[str | Path]) -> Usage:
        return measure.run(
            argv,
            log=self._folder / "buildkit.log",
            disk=measure.filesystem(self._folder),
            env=self._environment(),
            daemon=self._engine.pid,
        )

    def _environment(self) -> dict[str, str]:
        return {"DOCKER_HOST": self._engine.host, "DOCKER_CONFIG": str(self._folder / "docker")}


class Ordinary(_Dockerfile):
    """One `RUN pip install`."""

    name = "(a) ordinary Dockerfile"

    def build(self) -> Usage:
        """See Contender."""
        return self._built("--tag", self._tag)

    def forget(self) -> None:
        """Let the engine drop the image and its layer, and keep the base and the context."""
        self._engine.client.images.remove(self._tag, force=True)
        env = self._environment()
        held = run([reference.buildx(), "du", "--verbose"], env=env, error=BuildError).stdout.split("\n\n")
        for record in held:
            if "from exec" in record and (found := re.search(r"^ID:\s+(\w+)", record, re.MULTILINE)):
                run([reference.buildx(), "prune", "--all", "--force", "--filter", f"id={found[1]}"], env=env, error=BuildError)

    def push_zstd(self, registry: Registry) -> str:
        """Push the same layer compressed as ours are; returns its reference."""
        name = f"{registry.address}/{self._role}:zstd"
        self._built("--output", f"type=image,name={name},push=true,compression=zstd,force-compression=true,oci-mediatypes=true")
        return name

    def _built(self, *output: str) -> Usage:
        shutil.rmtree(self._context, ignore_errors=True)
        ordinary.lay_out(lockfile.read_set(spec.read(self._role).set), self._context)
        return self._run(ordinary.command(self._context, self._base, *output))


class Reference(_Dockerfile):
    """Split groups of wheels, installed by uv."""

    name = "(b) reference Dockerfile"

    def build(self) -> Usage:
        """See Contender."""
        image = spec.read(self._role)
        shutil.rmtree(self._context, ignore_errors=True)
        with reference.context(lockfile.read_set(image.set), image.files) as made:
            shutil.copytree(made, self._context, copy_function=os.link)
        if image.role not in ("train", "api"):
            # The Dockerfile has a target for each image of the project; the small set's differs from train's in nothing.
            image = replace(image, role="train")
        output = f"type=docker,name=docker.io/{self._tag}"
        return self._run(reference.command(image, self._context, self._base, output))


def layout_bytes(layout: Layout) -> int:
    """Bytes of all blobs of a layout.

    Raises:
        BuildError: it has none.
    """
    total = sum(file.stat().st_size for file in layout.blobs.iterdir())
    if not total:
        raise BuildError("the layout is empty", where=str(layout.root))
    return total
