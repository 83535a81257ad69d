"""Wheels that no index has: built from a locked sdist in the base's own root file system, or made of metadata alone."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import zipfile
from dataclasses import asdict
from email.parser import HeaderParser
from pathlib import Path

from common import console, paths
from common.errors import BuildError, LockError
from common.files import write_whole
from common.run import run
from lockfiles import store
from lockfiles.debian import rootfs
from lockfiles.inputs import SdistInput
from lockfiles.model import Artifact, BaseLock, SetLock, Wheel

_OURS = "it is made on this machine, and came out otherwise than when it was locked; run `invoke lock`, or report it"
# Runs inside the base: unpacks nothing, asks no network, sees only the source tree and the build backend.
_BUILD = """
import os, sys
os.umask(0o022)
os.chdir("/tmp/sdist/source")
sys.path[:0] = ["/tmp/sdist/backend"]
import setuptools.build_meta as backend
print("WHEEL=" + backend.build_wheel("/tmp/sdist/wheel"))
"""


def build(lock: BaseLock, sdist: Artifact, backend: Artifact, target: Path) -> Path:
    """Build a wheel from an sdist with setuptools (PEP 517), hermetically: the base's interpreter, no network, fixed epoch.

    Args:
        lock: the base whose interpreter and compiler are used.
        sdist: the source, in the store.
        backend: the setuptools wheel, in the store.
        target: folder for the wheel.

    Returns:
        the wheel's path.

    Raises:
        BuildError: the build fails; with the end of its output.
        LockError: sdist or backend are not what the lock says.
    """
    with tempfile.TemporaryDirectory(prefix="pinwheel-sdist-") as scratch:
        source = _unpack(sdist, Path(scratch) / "unpacked")
        # A copy: the package's own code runs in it as root, and the base is used for other things.
        tree = Path(scratch) / "tree"
        run(["cp", "-a", "--reflink=auto", rootfs.made(lock).tree, tree], error=BuildError, what="copying the base")
        work = tree / "tmp" / "sdist"
        for name in ("backend", "wheel"):
            (work / name).mkdir(parents=True)
        shutil.move(source, work / "source")
        with zipfile.ZipFile(store.verified(backend)) as archive_zip:
            archive_zip.extractall(work / "backend")  # noqa: S202
        argv: list[str | Path] = ["unshare", "--net", f"--root={tree}"]
        argv += [] if os.geteuid() == 0 else ["--map-root-user"]
        argv += ["/usr/bin/python3.11", "-S", "-c", _BUILD]
        env = {
            "SOURCE_DATE_EPOCH": str(rootfs.EPOCH),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "HOME": "/tmp",  # noqa: S108 - inside
        }
        what, fix = f"building {sdist.file} to a wheel", "the package's own build failed"
        said = run(argv, env=env, inherit=False, error=BuildError, what=what, fix=fix)
        name = said.stdout.rpartition("WHEEL=")[2].strip()
        return Path(shutil.copy(work / "wheel" / name, target / name))


def _unpack(sdist: Artifact, target: Path) -> Path:
    """Unpack an sdist; returns its one top folder."""
    try:
        with tarfile.open(store.verified(sdist)) as archive:
            # The "data" filter refuses absolute paths, "..", and links that leave the tree (PEP 706).
            archive.extractall(target, filter="data")
    except tarfile.TarError as problem:
        fix = "report it to its authors"
        raise BuildError(f"{sdist.file} is a broken or hostile archive: {problem}", fix=fix) from None
    top = list(target.iterdir())
    if len(top) != 1:
        raise BuildError(f"{sdist.file}: more than one folder at the top", fix="it is no sdist (PEP 517)")
    return top[0]


def lock_built(base: BaseLock, wanted: SdistInput, sdist: Artifact, backend: Artifact) -> Wheel:
    """Build a wheel twice, demand the same bytes, put it into the store and describe it for the lock.

    What came out is noted in the cache: the same source, backend and base are not built again while the store has the wheel.

    Raises:
        BuildError: the build fails, or two builds differ.
        LockError: the built metadata asks for other packages than the input states.
    """
    inputs = f"{rootfs.key(base)} {sdist.sha256} {backend.sha256} {wanted.requires}"
    note = paths.cache("built", f"{hashlib.sha256(inputs.encode()).hexdigest()}.json")
    try:
        known = Artifact(**json.loads(note.read_text()))
        if store.has(known):
            return Wheel(wanted.name, wanted.version, known, sdist)
    except (OSError, ValueError, TypeError):
        pass
    with tempfile.TemporaryDirectory(prefix="pinwheel-sdist-") as scratch, console.step(f"building {sdist.file}, twice"):
        wheels = []
        for number in ("1", "2"):
            (Path(scratch) / number).mkdir()
            wheels.append(build(base, sdist, backend, Path(scratch) / number))
        contents = [wheel.read_bytes() for wheel in wheels]
        if contents[0] != contents[1]:
            raise BuildError(
                f"{sdist.file} gives another wheel at each build", fix="it cannot be locked; publish a wheel of it"
            )
        with zipfile.ZipFile(wheels[0]) as archive:
            name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            asked = HeaderParser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []
        if sorted(asked) != sorted(wanted.requires):
            raise LockError(
                f"{sdist.file} requires {asked}, the input states {list(wanted.requires)}", fix="state what it requires"
            )
        artifact = _describe(wheels[0].name, contents[0])
        store.add_file(artifact, wheels[0])
    write_whole(note, json.dumps(asdict(artifact)))
    return Wheel(wanted.name, wanted.version, artifact, sdist)


def shim(name: str, version: str) -> Wheel:
    """Make a wheel that holds only the metadata of `name` `version`, put it into the store and describe it for the lock."""
    file, data = shim_bytes(name, version)
    artifact = _describe(file, data)
    with store.adding(artifact) as out:
        out.write(data)
    return Wheel(name, version, artifact, shim=True)


def shim_bytes(name: str, version: str) -> tuple[str, bytes]:
    """File name and bytes of a metadata-only wheel (binary distribution format, "File contents"); a pure function."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    about = f"Name: {name}\nVersion: {version}\nSummary: metadata only, made by Pinwheel\nLicense-Expression: Apache-2.0\n"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.4\n{about}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: pinwheel\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text)}\n"
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            entry = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text)
    return f"{name.replace('-', '_')}-{version}-py3-none-any.whl", buffer.getvalue()


def make_missing(base: BaseLock, lock: SetLock) -> None:
    """Bring the wheels that are ours to make into the store; their bytes must be the lock's.

    Raises:
        LockError: they are not.
        BuildError: a build fails.
    """
    for wheel in lock.wheels:
        if store.has(wheel.artifact):
            continue
        if wheel.shim:
            with store.adding(wheel.artifact, fix=_OURS) as out:
                out.write(shim_bytes(wheel.name, wheel.version)[1])
        elif wheel.sdist:
            with tempfile.TemporaryDirectory(prefix="pinwheel-sdist-") as scratch, console.step(f"building {wheel.sdist.file}"):
                made = build(base, wheel.sdist, backend_of(lock), Path(scratch))
                store.add_file(wheel.artifact, made, fix=_OURS)


def backend_of(lock: SetLock) -> Artifact:
    """The set's own setuptools, which builds its sdists.

    Raises:
        LockError: the set has none.
    """
    for wheel in lock.wheels:
        if wheel.name == "setuptools":
            return wheel.artifact
    raise LockError(f"{lock.name} builds from source but holds no setuptools", fix=f"add setuptools to {lock.name}.in")


def _describe(file: str, data: bytes) -> Artifact:
    return Artifact(file, len(data), hashlib.sha256(data).hexdigest())
