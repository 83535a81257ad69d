"""apt over Debian's suites alone: what the mirrors have, what apt chooses from it, and fetching by sha256.

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

from common import console, offline
from common.apt import Mirror, debian_mirrors, further_mirrors
from common.errors import LockError, MissingEnvironmentError
from common.files import write_whole
from common.run import Result, run
from lockfiles import store
from lockfiles.debian import deb as deb_file
from lockfiles.debian.suites import Suite
from lockfiles.inputs import BaseInput
from lockfiles.model import Artifact, Deb

ARCH = "amd64"
_HELPER = "/usr/lib/apt/apt-helper"
_DEBIAN_ONLY = "Pinwheel's base needs apt: run it on Debian 12"
# apt_preferences(5): above 1000 a version is taken even where a newer one is listed.
_KEPT = 1001
# Below 0 a version is never taken; above 500, that of Debian 12's suites, it is taken before theirs.
_NEVER, _NAMED = -1, 995


@dataclass(frozen=True, slots=True)
class Available:
    """A deb on a mirror: what it is, its address there, and the suite and component that list it."""

    deb: Deb
    address: str
    fields: Mapping[str, str]
    suite: tuple[str, str] = ("", "")

    @property
    def source(self) -> str:
        """The source package that it is built from (Debian policy 5.6.1)."""
        return self.fields.get("Source", self.deb.name).partition(" ")[0]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The version of a package that apt takes, and the sha256 of its deb."""

    version: str
    sha256: str


class Apt:
    """apt over Debian's suites alone, in a directory of its own: the machine's packages and other sources do not count."""

    def __init__(self, root: Path, suites: Iterable[Suite] = ()) -> None:
        offline.demand_network("reading Debian's package lists", fix="run it without --offline")
        self._suites = tuple(suites)
        further = [mirror for one in self._suites for mirror in further_mirrors(one.suite, one.component, one.keyring)]
        self._mirrors, logins = _split_logins((*debian_mirrors(), *further))
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
        self.options: list[str | Path] = [f"-o{key}={value}" for key, value in settings.items()]
        self._preferences = root / "etc/apt/preferences.d/locked.pref"
        self._offered = root / "offered" / "Packages"
        self._offered.parent.mkdir()
        run(
            ["apt-get", "-q", *self.options, "-oAPT::Update::Error-Mode=any", "update"],
            error=MissingEnvironmentError,
            what="reading Debian's package lists (apt-get update)",
            fix="check the network and apt's configuration",
            missing=_DEBIAN_ONLY,
        )

    def available(self) -> dict[str, Available]:
        """Every deb of the suites, by sha256."""
        debs: dict[str, Available] = {}
        for target in self._targets():
            if Path(target["FILENAME"]).is_file():
                suite = (target["RELEASE"], target["COMPONENT"])
                debs |= {a.deb.artifact.sha256: a for a in _read_packages(Path(target["FILENAME"]), target["REPO_URI"], suite)}
        return debs

    def misplaced(self, deb: Deb, known: Mapping[str, Available]) -> bool:
        """Whether a locked deb is not from the suite that the input names for its package."""
        named = {name: (one.suite, one.component) for one in self._suites for name, _ in one.packages}
        available = known.get(deb.artifact.sha256)
        return deb.name in named and available is not None and available.suite != named[deb.name]

    def _targets(self) -> list[dict[str, str]]:
        """The package lists there are, with what apt knows of each."""
        fields = ("CREATED_BY", "FILENAME", "REPO_URI", "RELEASE", "COMPONENT", "ORIGIN", "LABEL", "SUITE", "CODENAME")
        lists = run(["apt-get", *self.options, "indextargets", "--format", "|".join(f"$({field})" for field in fields)])
        found = [dict(zip(fields, line.split("|"), strict=True)) for line in lists.stdout.splitlines()]
        plain = [{key: "" if value.startswith("$(") else value for key, value in target.items()} for target in found]
        return [target for target in plain if target["CREATED_BY"] == "Packages"]

    def _further(self) -> Iterator[str]:
        """Preferences by which nothing comes from a further suite but what the input names."""
        letters = {"ORIGIN": "o", "LABEL": "l", "SUITE": "a", "CODENAME": "n", "COMPONENT": "c"}
        for one in self._suites:
            for target in self._targets():
                if (target["RELEASE"], target["COMPONENT"]) == (one.suite, one.component):
                    release = ",".join(f"{letter}={target[key]}" for key, letter in letters.items() if target[key])
                    if not release:
                        what = (
                            f"the Release file of {one.suite} says neither Origin nor Label: its packages cannot be told apart"
                        )
                        raise LockError(what, where=target["REPO_URI"], fix="have its owner add them")
                    for packages, priority in (("*", _NEVER), (" ".join(name for name, _ in one.packages), _NAMED)):
                        yield f"Package: {packages}\nPin: release {release}\nPin-Priority: {priority}\n"

    def offer(self, debs: Iterable[Deb]) -> dict[str, Available]:
        """Let apt choose these debs of the store too: locked ones that no mirror lists any more. Returns them by sha256.

        Raises:
            LockError, BuildError: a file of the store is not the deb that the lock names, or is broken.
        """
        stanzas = []
        for deb in debs:
            control = deb_file.read(deb, store.verified(deb.artifact)).control
            file = deb.artifact
            stanzas.append(f"{control}\nFilename: ./{file.file}\nSize: {file.size}\nSHA256: {file.sha256}\n")
        self._offered.write_text("\n".join(stanzas))
        return {available.deb.artifact.sha256: available for available in _read_packages(self._offered, "")}

    def choose(self, wanted: BaseInput, kept: Iterable[Deb] = ()) -> dict[str, Chosen]:
        """What apt takes for the base, by name: all essential packages, what `base.in` names, and all they depend on.

        Args:
            wanted: `base.in`.
            kept: debs that are taken in this version, or not at all; of every other package the newest version is taken.

        Raises:
            LockError: apt finds no such set; with apt's words.
        """
        pins = [f"Package: {deb.name}\nPin: version {deb.version}\nPin-Priority: {_KEPT}\n" for deb in kept]
        self._preferences.write_text("\n".join([*pins, *self._further()]))
        versions = dict(wanted.versions)
        named = [f"{name}={versions[name]}" if name in versions else name for name in wanted.packages]
        offered: list[str | Path] = ["--with-source", self._offered] if self._offered.exists() else []
        asked = ["install", "?essential", *named, *(f"{name}-" for name in wanted.without)]
        result = run(["apt-get", "-q", "-y", *self.options, *offered, "--print-uris", *asked], env={"LC_ALL": "C.UTF-8"})
        if result.code:
            console.debug(result.stdout + result.stderr)
            why, fix = self._refusal(result)
            raise LockError(f"resolving base.in failed: {why}", where="lockfiles/base.in", fix=fix)
        lines = re.finditer(r"^'[^']+' ([^_ ]+)_([^_ ]+)_\S+ \d+ SHA256:([0-9a-f]{64})$", result.stdout, re.MULTILINE)
        chosen = {line[1]: Chosen(unquote(line[2]), line[3]) for line in lines}
        if not chosen:
            raise LockError("apt resolved base.in to nothing", where="lockfiles/base.in", fix="check the package names")
        return chosen

    def _refusal(self, result: Result) -> tuple[str, str]:
        """Why apt finds no set, in its words, and what to do."""
        why = (result.stderr.strip().splitlines() or ["apt-get gives no reason"])[-1].removeprefix("E: ")
        if unmet := re.search(r"unmet dependencies:\n((?: .*\n)+)", result.stdout):
            told = "; ".join(" ".join(line.split()) for line in unmet[1].splitlines())[:600]
            return told, "drop one of them, or move its version"
        if virtual := re.search(r"Package (\S+) is a virtual package provided by:\n((?:  .*\n)+)", result.stdout):
            names = ", ".join(sorted({line.split()[0] for line in virtual[2].splitlines()}))
            return f"{virtual[1]} is a virtual package", f"name one that provides it: {names}"
        if version := re.fullmatch(r"Version '(.+)' for '(.+)' was not found", why):
            said = run(["apt-cache", *self.options, "madison", version[2]]).stdout
            there = ", ".join(dict.fromkeys(line.split("|")[1].strip() for line in said.splitlines() if "|" in line))
            return why, f"name one that there is: {there}" if there else f"no suite has {version[2]}: correct its name"
        return why, "check the packages' names and versions"

    def download(self, addresses: Mapping[Deb, Iterable[str]], scratch: Path) -> str:
        """Put into the store what arrives whole from one of its addresses; returns the last line of apt's messages."""
        triples: list[str] = []
        arrived: list[tuple[Deb, Path]] = []
        for deb, places in addresses.items():
            for number, address in enumerate(places):
                arrived.append((deb, scratch / f"{number}-{deb.artifact.sha256}"))
                triples += [address, str(arrived[-1][1]), f"SHA256:{deb.artifact.sha256}"]
        message = ""
        if triples:
            # Its exit code is not asked: what arrived whole is kept, what did not is named by the caller.
            result = run([_HELPER, *self.options, "-qq", "download-file", *triples], missing=_DEBIAN_ONLY)
            message = (result.stderr.strip().splitlines() or [""])[-1]
        for deb, file in arrived:
            if file.is_file() and not store.has(deb.artifact):
                store.add_file(deb.artifact, file)
        return message

    def bases(self) -> tuple[str, ...]:
        """The mirrors' addresses, without doubles."""
        return tuple(sorted({mirror.uri for mirror in self._mirrors}))


@contextmanager
def session(suites: Iterable[Suite] = ()) -> Iterator[Apt]:
    """A session of apt with today's package lists, those of further suites too.

    Raises:
        MissingEnvironmentError: no apt, no mirror, no network.
    """
    with tempfile.TemporaryDirectory(prefix="pinwheel-apt-") as scratch:
        with console.step("reading Debian's package lists"):
            apt = Apt(Path(scratch), suites)
        yield apt


def is_newer(version: str, than: str) -> bool:
    """Whether a Debian version is newer than another (Debian policy 5.6.12)."""
    return run(["dpkg", "--compare-versions", version, "gt", than], missing=_DEBIAN_ONLY).code == 0


def _split_logins(mirrors: tuple[Mirror, ...]) -> tuple[tuple[Mirror, ...], str]:
    """Take credentials out of addresses; returns the rest, and what goes into apt_auth.conf(5)."""
    own = Path("/etc/apt/auth.conf")
    lines = [own.read_text()] if own.is_file() and os.access(own, os.R_OK) else []
    plain = []
    for mirror in mirrors:
        parts = urlsplit(mirror.uri)
        if parts.username is None:
            plain.append(mirror)
            continue
        host = parts.netloc.rpartition("@")[2]
        login, password = unquote(parts.username), unquote(parts.password or "")
        lines.append(f"machine {parts.scheme}://{host}{parts.path} login {login} password {password}\n")
        plain.append(replace(mirror, uri=urlunsplit(parts._replace(netloc=host))))
    return tuple(plain), "".join(lines)


def _source(mirror: Mirror) -> str:
    components = f"Components: {mirror.component}\n" if mirror.component else ""
    return f"Types: deb\nURIs: {mirror.uri}\nSuites: {mirror.suite}\n{components}Signed-By: {mirror.keyring}\n"


def _read_packages(file: Path, base: str, suite: tuple[str, str] = ("", "")) -> Iterator[Available]:
    """Read a package list (Debian repository format, "Packages Indices")."""
    for stanza in file.read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and not line.startswith(" "))
        if "SHA256" not in fields:
            continue
        name = fields["Filename"].rpartition("/")[2]
        artifact = Artifact(name, int(fields["Size"]), fields["SHA256"])
        deb = Deb(fields["Package"], fields["Version"], fields["Architecture"], artifact)
        address = f"{base.rstrip('/')}/{fields['Filename']}".replace("+", "%2b").replace("~", "%7e")
        yield Available(deb, address, fields, suite)
