"""What the locked debs unpack to: the root file system of the base, as a deterministic tar and as a directory.

mmdebstrap lays it out from a local repository of exactly the locked files, so apt resolves nothing and fetches nothing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import console, ownership, paths
from common.apt import RELEASE
from common.errors import BuildError
from common.files import sha256_bytes, sha256_file
from common.run import run
from lockfiles import store
from lockfiles.debian import deb, generated
from lockfiles.model import BaseLock, Deb
from oci.reference import check_digest

# Every file's time, in every layer: the day Debian 12 was released. Not a lock's date: a relock would renew all layers.
EPOCH = 1686355200
# Bumped when the rules below change: a new base layer for the same debs.
_FORMAT = 1

# All that the tools get of an environment: TAR_OPTIONS and its like would change the bytes.
_ENVIRONMENT = {
    "SOURCE_DATE_EPOCH": str(EPOCH),
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "DEBIAN_FRONTEND": "noninteractive",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/nonexistent",
    # Where, not what.
    "TMPDIR": tempfile.gettempdir(),
}

# What a running container never reads. Copyright files stay: licences ask for it.
_EXCLUDED = (
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
    "/usr/share/bug/*",
    "/usr/share/doc/*",
    "/usr/share/doc-base/*",
    # Nothing links Python statically.
    "/usr/lib/python3.11/config-3.11-x86_64-linux-gnu/libpython3.11*.a",
    "/usr/lib/x86_64-linux-gnu/libpython3.11.a",
    # Triton and Inductor compile and link shared libraries, so gcc stays; what only other ways of using it need does not:
    # static programs (libgcc's and the empty archives stay, every link names them),
    "/usr/lib/x86_64-linux-gnu/libc.a",
    "/usr/lib/x86_64-linux-gnu/libm-2.36.a",
    "/usr/lib/x86_64-linux-gnu/libmvec.a",
    "/usr/lib/gcc/x86_64-linux-gnu/12/libstdc++.a",
    # -flto,
    "/usr/lib/gcc/x86_64-linux-gnu/12/lto1",
    "/usr/bin/*lto-dump*",
    # -fsanitize,
    "/usr/lib/gcc/x86_64-linux-gnu/12/lib?san*",
    "/usr/lib/gcc/x86_64-linux-gnu/12/libubsan*",
    "/usr/lib/x86_64-linux-gnu/lib?san.so.*",
    "/usr/lib/x86_64-linux-gnu/libubsan.so.*",
    # profiles of programs, the other linker, packed debug information.
    "/usr/bin/*gprofng*",
    "/usr/bin/*gp-*",
    "/usr/lib/x86_64-linux-gnu/libgprofng*",
    "/usr/lib/x86_64-linux-gnu/gprofng/*",
    "/usr/bin/*ld.gold",
    "/usr/bin/*dwp",
)
_HOOKS = (
    # The host's own, copied in by mmdebstrap; a container gets its own from the engine.
    'rm -f "$1/etc/hostname" "$1/etc/resolv.conf"',
    # They name the temporary repository; there is no apt in the image.
    'rm -rf "$1/etc/apt/sources.list" "$1/var/log/apt"',
    # Caches and logs that differ from run to run.
    'rm -f "$1/var/cache/ldconfig/aux-cache" "$1/var/cache/debconf/"*-old "$1/var/lib/dpkg/"*-old '
    '"$1/var/log/dpkg.log" "$1/var/log/alternatives.log" "$1/var/log/bootstrap.log"',
    # Nobody becomes root in these images.
    'find "$1" -xdev -type f -perm /6000 -exec chmod a-s {} +',
)


def key(lock: BaseLock) -> str:
    """The digest of everything the root file system is a function of."""
    debs = "".join(f"{deb.artifact.sha256}\n" for deb in lock.debs)
    # Where there are none of their own, the key is what it was before there could be some.
    hooks = _HOOKS + _own_hooks(lock)
    return sha256_bytes(f"{_FORMAT} {EPOCH} {_EXCLUDED} {hooks}\n{debs}".encode()).removeprefix("sha256:")


def _own_hooks(lock: BaseLock) -> tuple[str, ...]:
    return generated.hooks(deb.name for deb in lock.debs)


def _write_tar(lock: BaseLock, target: Path) -> None:
    """Lay out the debs and write the root file system as one tar.

    The same lock gives the same bytes, whatever the machine's paths, user or clock.

    Raises:
        LockError: a deb's bytes are not the lock's.
        BuildError: mmdebstrap fails; with the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="pinwheel-base-") as scratch:
        repository = Path(scratch) / "repository"
        repository.mkdir()
        # mmdebstrap without root reads the repository as another user.
        Path(scratch).chmod(0o755)
        _write_repository(lock, repository)
        mode = "root" if os.geteuid() == 0 else "unshare"
        argv: list[str | Path] = ["mmdebstrap", f"--mode={mode}", "--variant=essential", "--quiet", "--format=tar"]
        argv += [f"--include={','.join(deb.name for deb in lock.debs)}", "--skip=output/dev,check/empty"]
        argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
        argv += ["--dpkgopt=path-include=/usr/share/doc/*/copyright", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"]
        argv += [f"--customize-hook={hook}" for hook in _HOOKS + _own_hooks(lock)]
        argv += [RELEASE, target, f"deb [trusted=yes] copy:{repository} ./"]
        run(
            argv,
            env=_ENVIRONMENT,
            inherit=False,
            error=BuildError,
            what="laying out the base (mmdebstrap)",
            fix="PINWHEEL_VERBOSE=1 shows the command",
        )


@dataclass(frozen=True, slots=True)
class Rootfs:
    """The base's root file system in both forms.

    Attributes:
        tar: what the base layer is made from.
        tree: the same unpacked, for running the image's own interpreter on this machine; no layer comes from it.
        digest: of the tar, when it was made.
    """

    tar: Path
    tree: Path
    digest: str


def made(lock: BaseLock, home: Path | None = None) -> Rootfs:
    """The root file system of the locked base, laid out when it is not there yet.

    Args:
        lock: the base.
        home: folder to keep it in; default: the cache.

    Raises:
        LockError: a deb's bytes are not the lock's.
        BuildError: mmdebstrap fails.
    """
    home = home or paths.cache("rootfs")
    home.mkdir(parents=True, exist_ok=True)
    target = home / key(lock)
    ownership.check(target)
    # Two builds at once: the second waits and finds it done.
    with (home / ".lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        for killed in home.glob(f"{_NEW}*"):
            shutil.rmtree(killed, ignore_errors=True)
        _hold(target)
        if not (target / "tree/etc/passwd").is_file() or _recorded(target) is None:
            with console.step(f"laying out the base from {len(lock.debs)} debs") as notes:
                _lay_out(lock, home, target)
                notes.append(console.size((target / "base.tar").stat().st_size))
    return Rootfs(target / "base.tar", target / "tree", _recorded(target) or "")


def interpreter(lock: BaseLock) -> tuple[Deb, ...]:
    """The debs that the base's Python needs to run, by their own dependencies: all that compiling takes of the base."""
    debs, found = {deb.name: deb for deb in lock.debs}, set[str]()
    todo = ["python3.11-minimal"]
    while todo:
        if (name := todo.pop()) not in found:
            found.add(name)
            todo += debs[name].needs
    return tuple(deb for deb in lock.debs if deb.name in found)


@contextmanager
def compiling(debs: tuple[Deb, ...]) -> Iterator[Rootfs]:
    """A tree of these debs, out of the store, for as long as the block runs, in which the base's Python runs; there is no tar.

    Raises:
        LockError: a deb's bytes are not the lock's.
        BuildError: it cannot be unpacked.
    """
    with tempfile.TemporaryDirectory(prefix="pinwheel-python-") as scratch:
        for one in debs:
            argv: list[str | Path] = ["dpkg-deb", "--extract", store.verified(one.artifact), scratch]
            run(argv, env=_ENVIRONMENT, inherit=False, error=BuildError, what=f"unpacking {one.name}")
        yield Rootfs(Path(scratch) / "base.tar", Path(scratch), "")


# A base in the making.
_NEW = ".new-"
# File descriptors, open for as long as this process lives: what is held here, another process does not remove.
_held: dict[Path, int] = {}


def _hold(target: Path) -> None:
    if target not in _held:
        _held[target] = os.open(target.with_suffix(".used"), os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(_held[target], fcntl.LOCK_SH)


def _recorded(target: Path) -> str | None:
    """The digest that base.tar had when it was made."""
    try:
        return check_digest((target / "base.tar.digest").read_text()) if (target / "base.tar").is_file() else None
    except (OSError, ValueError):
        return None


def _lay_out(lock: BaseLock, home: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=home, prefix=_NEW) as scratch:
        new = Path(scratch) / "new"
        (new / "tree").mkdir(parents=True)
        _write_tar(lock, new / "base.tar")
        generated.check(new / "base.tar")
        argv: list[str | Path] = ["tar", "-C", new / "tree", "--numeric-owner", "-xf", new / "base.tar"]
        run(argv, env=_ENVIRONMENT, inherit=False, error=BuildError, what="unpacking the base")
        (new / "base.tar.digest").write_text(sha256_file(new / "base.tar"))
        # Only the newest base is kept, each is a gigabyte; and those that a running build still uses.
        for old in home.iterdir():
            if old.is_dir() and not old.name.startswith(".") and (old == target or not _used(old)):
                shutil.rmtree(old, ignore_errors=True)
        new.replace(target)


def _used(old: Path) -> bool:
    with old.with_suffix(".used").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _write_repository(lock: BaseLock, target: Path) -> None:
    """Write a flat apt repository of the locked debs, each verified and looked into."""

    def read(package: Deb) -> deb.Contents:
        source = store.verified(package.artifact)
        (target / package.artifact.file).symlink_to(source)
        return deb.read(package, source)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        contents = list(pool.map(read, lock.debs))
    deb.check_together(contents)
    packages = target / "Packages"
    with packages.open("w", encoding="utf-8") as out:
        for package in contents:
            file = package.deb.artifact
            out.write(f"{package.control}\nFilename: ./{file.file}\nSize: {file.size}\nSHA256: {file.sha256}\n\n")
    digest = sha256_file(packages).removeprefix("sha256:")
    # mmdebstrap recognises the essential packages by the repository's code name.
    (target / "Release").write_text(
        f"Codename: {RELEASE}\nSuite: {RELEASE}\nDate: Sat, 10 Jun 2023 00:00:00 UTC\nSHA256:\n"
        f" {digest} {packages.stat().st_size} Packages\n"
    )
