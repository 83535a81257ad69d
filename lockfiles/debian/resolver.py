"""Debian packages: resolving the base with apt itself, and fetching locked debs.

Trust: apt checks the suites' signed Release files against Debian's archive keyring and the package lists against those; the
lists name each deb's sha256, which goes into the lock and is checked at every use.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import requests

from common import console, offline
from common.apt import KEYRING, Mirror, debian_mirrors
from common.errors import LockError, MissingEnvironmentError, PinwheelError
from common.files import write_whole
from common.run import run
from lockfiles import store
from lockfiles.debian import relations
from lockfiles.inputs import BaseInput
from lockfiles.model import Artifact, Deb
from lockfiles.python import index
from lockfiles.store import archive, mirror
from lockfiles.store.transfer import UnreachableError

ARCH = "amd64"
_HELPER = "/usr/lib/apt/apt-helper"
_DEBIAN_ONLY = "Pinwheel's base needs apt: run it on Debian 12"


@dataclass(frozen=True, slots=True)
class _Available:
    """A deb on a mirror: what it is, and its address there."""

    deb: Deb
    address: str
    fields: Mapping[str, str]


class _Apt:
    """apt over Debian's suites alone, in a directory of its own: the machine's packages and other sources do not count."""

    def __init__(self, root: Path) -> None:
        offline.demand_network("reading Debian's package lists", fix="run it without --offline")
        self._mirrors, logins = _split_logins(debian_mirrors())
        for name in ("etc/apt/sources.list.d", "etc/apt/preferences.d", "state/lists/partial", "cache/archives/partial"):
            (root / name).mkdir(parents=True)
        (root / "status").touch()
        write_whole(root / "auth.conf", logins, 0o600)
        (root / "etc/apt/sources.list.d/debian.sources").write_text("\n".join(_source(m) for m in self._mirrors))
        settings = {
            "Dir": root,
            "Dir::State": "state",
            "Dir::Cache": "cache",
            "Dir::State::status": root / "status",
            # The user's credentials: those of mirrors' addresses in a file, never in an argument; others where apt keeps them.
            "Dir::Etc::netrc": root / "auth.conf",
            "Dir::Etc::netrcparts": "/etc/apt/auth.conf.d",
            "APT::Architecture": ARCH,
            "APT::Architectures": ARCH,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            # apt counts itself as essential; our images have none.
            "pkgCacheGen::ForceEssential": ",",
            "Acquire::Languages": "none",
            "Acquire::ForceHash": "SHA256",
            "Acquire::GzipIndexes": "false",
            "Acquire::Retries": "3",
        }
        self.options = [f"-o{key}={value}" for key, value in settings.items()]
        run(
            ["apt-get", "-q", *self.options, "-oAPT::Update::Error-Mode=any", "update"],
            error=MissingEnvironmentError,
            what="reading Debian's package lists (apt-get update)",
            fix="check the network and apt's configuration",
            missing=_DEBIAN_ONLY,
        )

    def available(self) -> dict[str, _Available]:
        """Every deb of the suites, by sha256."""
        found: dict[str, _Available] = {}
        lists = run(["apt-get", *self.options, "indextargets", "--format", "$(CREATED_BY) $(FILENAME) $(REPO_URI)"])
        for line in lists.stdout.splitlines():
            created_by, file, base = line.split(" ", 2)
            if created_by == "Packages" and Path(file).is_file():
                found |= {a.deb.artifact.sha256: a for a in _read_packages(Path(file), base)}
        return found

    def bases(self) -> tuple[str, ...]:
        """The mirrors' addresses, without doubles."""
        return tuple(sorted({mirror.uri for mirror in self._mirrors}))


@contextmanager
def _apt() -> Iterator[_Apt]:
    with tempfile.TemporaryDirectory(prefix="pinwheel-apt-") as scratch:
        yield _Apt(Path(scratch))


def resolve(wanted: BaseInput) -> tuple[Deb, ...]:
    """Resolve the base: all essential packages, what `base.in` names, and all they depend on; sorted by name.

    Raises:
        LockError: apt finds no such set; with apt's words.
        MissingEnvironmentError: no apt, no mirror, no network.
    """
    with _apt() as apt:
        said = run(
            ["apt-get", "-qq", "-y", *apt.options, "--print-uris", "install", "?essential", *wanted.packages]
            + [f"{name}-" for name in wanted.without],
            error=LockError,
            what="resolving base.in (apt-get)",
            fix="check the package names",
        )
        known = apt.available()
    chosen: dict[str, _Available] = {}
    for line in said.stdout.splitlines():
        match = re.fullmatch(r"'[^']+' \S+ \d+ SHA256:([0-9a-f]{64})", line)
        if match:
            chosen[known[match[1]].deb.name] = known[match[1]]
    if not chosen:
        raise LockError("apt resolved base.in to nothing", where="lockfiles/base.in", fix="check the package names")
    said_of = {name: relations.read(one.fields) for name, one in sorted(chosen.items())}
    needs = relations.needs(said_of)
    return tuple(replace(chosen[name].deb, needs=needs[name], essential=one.essential) for name, one in said_of.items())


def fetch(debs: tuple[Deb, ...]) -> None:
    """Bring the locked debs into the store.

    They are asked for at the user's mirror, at Debian's, and at the archives the user has set. A deb that its suite no longer
    lists is asked for at Debian's once more where its successor lies: mirrors keep a superseded file for a while after the
    list has moved on.

    Raises:
        LockError: a deb is gone everywhere, named, with its successor; or a mirror or an archive has other bytes.
        MissingEnvironmentError: no apt, no network, no disk, or a mirror that serves other bytes than it lists.
    """
    with index.session() as http:
        left = _left(debs, store.take((deb.artifact for deb in debs), mirror.places(), http))
        if not left:
            return
        if offline.offline():
            more = f" (and {len(left) - 1} more debs)" if len(left) > 1 else ""
            raise MissingEnvironmentError(
                f"{left[0].name} {left[0].version}{more} is not in the store, and this run is offline",
                where=f"{left[0].artifact.file}, sha256 {left[0].artifact.sha256}",
                fix=offline.FIX,
            )
        with _apt() as apt, console.step(f"fetching {len(left)} debs, {console.size(sum(d.artifact.size for d in left))}"):
            known = apt.available()
            by_name = {available.deb.name: available for available in known.values()}
            with tempfile.TemporaryDirectory(prefix="pinwheel-debs-") as scratch:
                listed = {deb: [known[deb.artifact.sha256].address] for deb in left if deb.artifact.sha256 in known}
                said = _download(apt, listed, Path(scratch))
                gone = {deb: _guesses(deb, by_name, apt.bases()) for deb in left if deb not in listed}
                _download(apt, gone, Path(scratch))
        pools = {name: pool for name, one in by_name.items() if (pool := _pool(one, apt.bases()))}
        left, refusals = _from_archives(_left(left, store.missing(deb.artifact for deb in left)), pools, http)
    if left:
        raise _nowhere(left, dict.fromkeys(listed, said), by_name, refusals)


def _left(debs: Iterable[Deb], artifacts: Iterable[Artifact]) -> tuple[Deb, ...]:
    digests = {artifact.sha256 for artifact in artifacts}
    return tuple(deb for deb in debs if deb.artifact.sha256 in digests)


def _from_archives(
    debs: tuple[Deb, ...], pools: dict[str, str], http: requests.Session
) -> tuple[tuple[Deb, ...], tuple[str, ...]]:
    """Ask the archives in their order; returns what none has, and what those said that did not answer."""
    refusals = []
    for place in archive.places(debs, pools):
        try:
            debs = _left(debs, store.take((deb.artifact for deb in debs), (place,), http))
        except UnreachableError as problem:
            # The next one may have it all.
            debs = _left(debs, store.missing(deb.artifact for deb in debs))
            refusals.append(f"{problem.where}: {problem.what}")
    return debs, tuple(refusals)


def _nowhere(
    debs: tuple[Deb, ...], listed: dict[Deb, str], by_name: dict[str, _Available], refusals: tuple[str, ...]
) -> PinwheelError:
    for deb in debs:
        if deb in listed:
            return MissingEnvironmentError(
                f"{deb.name} {deb.version} cannot be fetched, or the mirror's bytes are not those of the lock",
                where="; ".join((f"sha256 {deb.artifact.sha256}", listed[deb], *refusals)),
                fix="check the network, the disk and the mirror",
            )
    first = debs[0]
    newer = by_name[first.name].deb.version if first.name in by_name else "none"
    more = f" and {len(debs) - 1} more" if len(debs) > 1 else ""
    return LockError(
        f"{first.name} {first.version}{more} left Debian's mirror (superseded)",
        where="; ".join((f"lockfiles/base.lock, sha256 {first.artifact.sha256}", *refusals)),
        fix=f"`invoke lock` would take {first.name} {newer}, or name an archive that has it in {archive.VARIABLE}",
    )


def _download(apt: _Apt, wanted: dict[Deb, list[str]], scratch: Path) -> str:
    """Put into the store what arrives whole; returns the last that apt said."""
    triples: list[str] = []
    said = ""
    for deb, addresses in wanted.items():
        for number, address in enumerate(addresses):
            triples += [address, str(scratch / f"{number}-{deb.artifact.sha256}"), f"SHA256:{deb.artifact.sha256}"]
    if triples:
        # Its exit code is not asked: what arrived whole is kept, what did not is named by the caller.
        result = run([_HELPER, *apt.options, "-qq", "download-file", *triples], missing=_DEBIAN_ONLY)
        said = (result.stderr.strip().splitlines() or [""])[-1]
    for deb, addresses in wanted.items():
        for number in range(len(addresses)):
            arrived = scratch / f"{number}-{deb.artifact.sha256}"
            if arrived.is_file() and not store.has(deb.artifact):
                store.add_file(deb.artifact, arrived)
    return said


def _guesses(deb: Deb, by_name: dict[str, _Available], bases: tuple[str, ...]) -> list[str]:
    """Where a deb that is listed no more may still lie: in its successor's directory, on each mirror."""
    pool = _pool(by_name[deb.name], bases) if deb.name in by_name else ""
    if not pool:
        return []
    file = deb.artifact.file.replace("+", "%2b").replace("~", "%7e")
    return [f"{base}{area}{pool}/{file}" for base in bases for area in ("pool/", "pool/updates/")]


def _pool(available: _Available, bases: tuple[str, ...]) -> str:
    """The folder of a package within its mirror's pool, `main/c/curl`; empty where it lies elsewhere."""
    folder = available.address.rpartition("/")[0]
    base = next((base for base in bases if folder.startswith(base)), None)
    return "" if base is None else folder.removeprefix(base).removeprefix("pool/").removeprefix("updates/")


def _split_logins(mirrors: tuple[Mirror, ...]) -> tuple[tuple[Mirror, ...], str]:
    """Take credentials out of addresses; returns the rest, and what goes into apt_auth.conf(5)."""
    own = Path("/etc/apt/auth.conf")
    lines = [own.read_text()] if own.is_file() and os.access(own, os.R_OK) else []
    plain = []
    for one in mirrors:
        parts = urlsplit(one.uri)
        if parts.username is None:
            plain.append(one)
            continue
        host = parts.netloc.rpartition("@")[2]
        login, password = unquote(parts.username), unquote(parts.password or "")
        lines.append(f"machine {parts.scheme}://{host}{parts.path} login {login} password {password}\n")
        plain.append(Mirror(one.suite, urlunsplit(parts._replace(netloc=host))))
    return tuple(plain), "".join(lines)


def _source(mirror: Mirror) -> str:
    return f"Types: deb\nURIs: {mirror.uri}\nSuites: {mirror.suite}\nComponents: main\nSigned-By: {KEYRING}\n"


def _read_packages(file: Path, base: str) -> Iterator[_Available]:
    """Read a package list (Debian repository format, "Packages Indices")."""
    for stanza in file.read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and not line.startswith(" "))
        if "SHA256" not in fields:
            continue
        name = fields["Filename"].rpartition("/")[2]
        artifact = Artifact(name, int(fields["Size"]), fields["SHA256"])
        deb = Deb(fields["Package"], fields["Version"], fields["Architecture"], artifact)
        address = f"{base.rstrip('/')}/{fields['Filename']}".replace("+", "%2b").replace("~", "%7e")
        yield _Available(deb, address, fields)
