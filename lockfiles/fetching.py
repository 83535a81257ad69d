"""`invoke fetch`: everything the base and the sets are made of, into the store and from there into an air-gap mirror."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import requests

from common import console, paths, pip
from common.errors import MissingEnvironmentError
from common.files import sha256_file
from common.offline import offline
from common.run import run
from lockfiles import inputs, lockfile, store
from lockfiles.debian import resolver
from lockfiles.model import Artifact, BaseLock, Deb, SetLock
from lockfiles.python import direct_references, index
from lockfiles.sdists import build
from lockfiles.store import mirror


def fetch(names: Iterable[str]) -> None:
    """Bring everything that the base and these sets are made of into the store.

    What we make ourselves is taken from the user's mirror where that has it, and made otherwise.

    Raises:
        LockError: something is gone or altered.
        MissingEnvironmentError: no network, no disk.
        BuildError: a wheel of ours cannot be made.
    """
    base = lockfile.read_base()
    bring(base, base.debs, [lockfile.read_set(name) for name in names])


def bring(base: BaseLock, debs: tuple[Deb, ...], locks: Sequence[SetLock]) -> None:
    """Bring debs and the wheels of sets, or of parts of sets, into the store; as `fetch`.

    Args:
        base: in which a wheel of ours is made, if it must be; then all of its debs are wanted.
        debs: of the base.
        locks: of the sets; those that hold a part of the wheels do for these.
    """
    resolver.fetch(debs)
    with index.session() as http:
        ours = [wheel for lock in locks for wheel in lock.wheels if wheel.sdist or wheel.shim]
        to_make = store.take((wheel.artifact for wheel in ours), mirror.places(), http)
        wanted = [wheel.artifact for lock in locks for wheel in lock.wheels if not (wheel.sdist or wheel.shim)]
        wanted += [
            a for wheel in ours if wheel.sdist and wheel.artifact in to_make for a in (wheel.sdist, *(wheel.build or ()))
        ]
        download(locks, wanted, http)
    for lock in locks:
        build.make_missing(base, lock)


def download(locks: Iterable[SetLock], wanted: Collection[Artifact], http: requests.Session) -> None:
    """Bring files of these sets into the store, each from where the set's input says: checkout, address, named index, index.

    Raises:
        LockError: something is gone or altered.
        MissingEnvironmentError: no network, no disk.
    """
    for lock in locks:
        direct_references.fetch(inputs.read_set(lock.name), lock, wanted, http)
    store.download(wanted, index.Locator(http), http)


def write_mirror(names: Iterable[str], target: Path, more: Iterable[Artifact] = ()) -> tuple[int, int]:
    """Fetch, then write a mirror of all that was fetched: `invoke fetch --to`.

    It holds the wheels we build and the sources they are built from, so a machine that uses it needs to build nothing and can;
    and the toolkit's wheels for a machine like this one, so that `invokew` makes its environment from it.

    Args:
        names: of the sets.
        target: the mirror's folder.
        more: what else of the store belongs into it.

    Returns:
        how many files were added to it, and their bytes.

    Raises:
        LockError, MissingEnvironmentError, BuildError: as `fetch` and `mirror.write`.
    """
    names = tuple(names)
    fetch(names)
    # Whoever points pip at the mirror must not be given an empty package for a real one; we make shims without a network.
    shims = {wheel.artifact for name in names for wheel in lockfile.read_set(name).wheels if wheel.shim}
    held = set(artifacts(names)) - shims
    with index.session() as http:
        # Of wheels that were in the store already: their sources, and what builds them.
        builders = {artifact for name in names for wheel in lockfile.read_set(name).wheels for artifact in wheel.build or ()}
        sources = [a for a in held if a in builders or not a.file.endswith((".deb", ".whl"))]
        download([lockfile.read_set(name) for name in names], sources, http)
    return mirror.write(target, {*held, *more, *_toolkit()}, store.verified)


def _toolkit() -> Iterator[Artifact]:
    """Bring the toolkit's wheels for this Python and platform into the store; pip checks them against toolkit.txt."""
    if offline():
        console.warn("the toolkit's own wheels are left out of the mirror: pip needs the network for them")
        return
    with tempfile.TemporaryDirectory(prefix="pinwheel-toolkit-") as folder:
        argv: list[str | Path] = [*pip.PIP, "download", "--quiet", "--require-hashes", "--no-deps"]
        argv += ["--only-binary", ":all:", "--dest", folder, "--requirement", paths.LOCKFILES / "toolkit.txt"]
        with console.step("fetching the toolkit's wheels"):
            what, fix = "fetching the toolkit's wheels (pip download)", "check the network and your pip configuration"
            try:
                own = pip.environment("download")
            except ValueError as problem:
                raise MissingEnvironmentError(f"pip cannot read its configuration: {problem}", fix=fix) from None
            run(argv, env=own, inherit=False, error=MissingEnvironmentError, what=what, fix=fix)
        for file in sorted(Path(folder).iterdir()):
            artifact = Artifact(file.name, file.stat().st_size, sha256_file(file).removeprefix("sha256:"))
            store.add_file(artifact, file)
            yield artifact


def artifacts(names: Iterable[str]) -> tuple[Artifact, ...]:
    """Every file that the base and these sets name, sources included, sorted by name.

    Raises:
        LockError: a lock is missing or broken.
    """
    found = {deb.artifact for deb in lockfile.read_base().debs}
    for name in names:
        for wheel in lockfile.read_set(name).wheels:
            found |= {wheel.artifact, *([wheel.sdist] if wheel.sdist else []), *(wheel.build or ())}
    return tuple(sorted(found, key=lambda artifact: (artifact.file, artifact.sha256)))
