"""What the locks hold, as values. Their form on disk is lockfile.py's.

A lock names content (sha256, size, file name), never a location.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import LockError


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file as the store knows it: by content.

    Attributes:
        file: its name, for people and for tools that read names.
        size: bytes.
        sha256: 64 hex digits.
    """

    file: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Deb:
    """A Debian package, one binary.

    Attributes:
        name: of the binary package.
        version: with epoch and Debian revision.
        arch: `amd64` or `all`.
        artifact: the .deb file.
        needs: names of the locked packages that satisfy its Depends and Pre-Depends, sorted.
        essential: whether Debian marks it so (Debian policy 3.8): it needs nobody who asks for it.
        licence: SPDX expression, read from the copyright file in the deb; see licences.py.
    """

    name: str
    version: str
    arch: str
    artifact: Artifact
    needs: tuple[str, ...] = ()
    essential: bool = False
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel.

    Attributes:
        name: normalised (PEP 503).
        version: as the index has it.
        artifact: the wheel file.
        sdist: where the wheel is built by us, the source it is built from.
        shim: whether it is a metadata-only wheel that we make.
        build: the wheels that build it from `sdist`, sorted by file; None where it is not built, or the lock is an older one.
        reproducible: whether each build of `sdist` gives the same bytes, as the input has it.
        needs: what it asks for on the image's platform, sorted: its Requires-Dist whose markers hold, without them
            (`numpy<3,>=1.17`, `uvicorn[standard]`); those of its extras too, where the set asks for the extras.
        licence: SPDX expression, read from the wheel's metadata; see licences.py.
        commit, tree: of the git repository whose files the sdist holds, hex; empty for others. The tree's hash is that of the
            package's folder.
    """

    name: str
    version: str
    artifact: Artifact
    sdist: Artifact | None = None
    shim: bool = False
    needs: tuple[str, ...] = ()
    licence: str = ""
    commit: str = ""
    tree: str = ""
    build: tuple[Artifact, ...] | None = None
    reproducible: bool = True


@dataclass(frozen=True, slots=True)
class Gpu:
    """What a set asks of the host's GPU, read from its torch wheel; see gpu.py.

    Attributes:
        cuda: the CUDA version torch was built with, `13.0`.
        driver: the oldest NVIDIA driver branch that runs it, `580`.
        compute: the compute capabilities torch holds code for, ascending, `7.5`.
    """

    cuda: str
    driver: int
    compute: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BaseLock:
    """`base.lock`: every deb of the base layer."""

    inputs: str
    date: str
    debs: tuple[Deb, ...]

    def version(self, package: str) -> str:
        """The upstream version of a locked package, without epoch and Debian revision.

        Raises:
            LockError: the package is not in the lock.
        """
        for deb in self.debs:
            if deb.name == package:
                return deb.version.rpartition(":")[2].partition("-")[0]
        fix = "name it in base.in and run `invoke lock`"
        raise LockError(f"{package} is not in the base", where="lockfiles/base.lock", fix=fix)


@dataclass(frozen=True, slots=True)
class SetLock:
    """`<set>.lock`: every wheel of one Python set, and the target they were chosen for.

    Attributes:
        name: of the set.
        inputs: digest of the meaning of `<set>.in`.
        date: UTC day on which the content last changed.
        python, glibc: of the base the wheels were chosen for.
        wheels: sorted by name.
        gpu: what it asks of a GPU; None for a set without torch.
    """

    name: str
    inputs: str
    date: str
    python: str
    glibc: str
    wheels: tuple[Wheel, ...]
    gpu: Gpu | None = None
