"""What packages make while they are installed, another on each machine: host keys, machine ids. No base layer holds it.

What is known is taken out; then every file that no deb brought as it is, is looked through for private keys, and one that is
found refuses the base: it would be the same for all who run the image, and another digest at each build.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from common import private_keys
from common.errors import BuildError

# By package: paths (sh(1) patterns) that it writes when it is installed. A container that needs one makes it when it starts.
_MADE = {
    "bind9": ("etc/bind/rndc.key",),
    "dbus": ("var/lib/dbus/machine-id",),
    "dropbear": ("etc/dropbear/dropbear_*_host_key",),
    "munge": ("etc/munge/munge.key",),
    "open-iscsi": ("etc/iscsi/initiatorname.iscsi",),
    "openssh-server": ("etc/ssh/ssh_host_*_key", "etc/ssh/ssh_host_*_key.pub"),
    "postfix": ("etc/mailname",),
    "ssl-cert": ("etc/ssl/private/ssl-cert-snakeoil.key", "etc/ssl/certs/ssl-cert-snakeoil.pem"),
    "systemd": ("etc/machine-id", "var/lib/systemd/random-seed", "var/lib/systemd/credential.secret"),
    "unbound": ("etc/unbound/unbound_*.key", "etc/unbound/unbound_*.pem"),
}
_INFO = "var/lib/dpkg/info/"
# Bytes. No key is larger, and what is larger is no key.
_LARGEST = 1 << 20


def hooks(packages: Iterable[str]) -> tuple[str, ...]:
    """The mmdebstrap hooks that take out what these packages are known to make."""
    there = sorted(_MADE.keys() & set(packages))
    found = [f"rm -f {' '.join(_path(path) for path in _MADE[package])}" for package in there]
    # By the hash of its subject, a certificate has a second name.
    found += ['find "$1/etc/ssl/certs" -lname ssl-cert-snakeoil.pem -delete'] if "ssl-cert" in there else []
    return tuple(found)


def _path(pattern: str) -> str:
    return f'"$1"/{pattern}'


def check(tar: Path) -> None:
    """Refuse a base in which a package left a private key.

    Raises:
        BuildError: naming the file and the package.
    """
    with tarfile.open(tar) as archive:
        info = {
            name: file.read()
            for member in archive
            if (name := _name(member)).startswith(_INFO) and (file := archive.extractfile(member))
        }
    shipped = dict(_shipped(info))
    with tarfile.open(tar) as archive:
        for member in archive:
            name = _name(member)
            if not member.isreg() or member.size > _LARGEST or name.startswith(_INFO):
                continue
            file = archive.extractfile(member)
            data = file.read() if file else b""
            # What a deb brings everybody has: examples, keys of tests.
            if shipped.get(name) == hashlib.md5(data, usedforsecurity=False).hexdigest():
                continue
            if key := next(private_keys.find(data), None):
                raise BuildError(
                    f"{_maker(name, info)} makes {key[0]} when it is installed: everyone who has the image would have it",
                    where=f"/{name} of the base",
                    fix="leave the package out of base.in, and report this: Pinwheel can take out what it knows",
                )


def _shipped(info: dict[str, bytes]) -> Iterator[tuple[str, str]]:
    """Path and MD5 of every file that a deb brings (deb-md5sums(5))."""
    for name, text in info.items():
        if name.endswith(".md5sums"):
            for line in text.decode(errors="replace").splitlines():
                digest, _, path = line.partition("  ")
                yield path, digest


def _maker(path: str, info: dict[str, bytes]) -> str:
    """The package that most likely wrote a file: its script names it, or the folder, or the folder is its own."""
    folder = path.rpartition("/")[0]
    last = path.rpartition("/")[2]
    for ending, needle in ((".postinst", path), (".postinst", last), (".postinst", folder), (".list", folder)):
        found = sorted(
            name.removeprefix(_INFO).removesuffix(ending).partition(":")[0]
            for name, text in info.items()
            if name.endswith(ending) and needle and _holds(text, needle, whole=ending == ".list")
        )
        if found:
            return " or ".join(found[:3])
    return "some package"


def _holds(text: bytes, needle: str, *, whole: bool) -> bool:
    return f"/{needle}".encode() in text.splitlines() if whole else needle.encode() in text


def _name(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./")
