"""The hand-kept inputs of the locks: `base.in` and one `<set>.in` per Python set, in TOML.

Unknown keys are refused: a misspelt one would otherwise pin nothing, silently.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from common import paths, reader
from common.errors import UsageError
from lockfiles import origins, requirement_hint
from lockfiles.debian import suites
from lockfiles.debian.suites import Suite
from lockfiles.origins import Origin, OriginError

# Part of every inputs digest: a change of what a lock means makes all locks stale.
FORMAT = 2
# How [sources] calls the index that is asked for everything else.
DEFAULT = "default"
# A normalised project name (PEP 503).
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class BaseInput:
    """`base.in`.

    Attributes:
        packages: names of the Debian packages the images need, those of all suites.
        without: packages that no dependency may bring in.
        digest: over the meaning of the file, not its comments or layout.
        versions: (name, version) of those that are pinned.
        suites: others than Debian 12's own.
    """

    packages: tuple[str, ...]
    without: tuple[str, ...]
    digest: str
    versions: tuple[tuple[str, str], ...] = ()
    suites: tuple[Suite, ...] = ()


@dataclass(frozen=True, slots=True)
class SdistInput:
    """A package that is built from its source.

    Attributes:
        name, version: of the package.
        requires: its stated Requires-Dist; what belongs to extras may be left out.
        build: what building it needs (PEP 508); None for what its pyproject.toml declares.
        reproducible: whether two builds must give the same bytes.
    """

    name: str
    version: str
    requires: tuple[str, ...]
    build: tuple[str, ...] | None = None
    reproducible: bool = True


@dataclass(frozen=True, slots=True)
class SetInput:
    """One `<set>.in`.

    Attributes:
        name: of the set; the file's name.
        requires: requirements (PEP 508).
        overrides: requirements that replace what packages ask for.
        sdists: packages to build from source.
        shims: (name, version) of metadata-only wheels to make.
        agrees: the set whose versions this one shares, wherever both hold a package; empty for none.
        differs: (package, reason) of those that it does not share.
        digest: over the meaning of the file.
        origins: of the packages that do not come from the default index, sorted by name.
    """

    name: str
    requires: tuple[str, ...]
    overrides: tuple[str, ...]
    sdists: tuple[SdistInput, ...]
    shims: tuple[tuple[str, str], ...]
    agrees: str
    differs: tuple[tuple[str, str], ...]
    digest: str
    origins: tuple[Origin, ...] = ()


def set_names() -> tuple[str, ...]:
    """The Python sets there are, sorted.

    Raises:
        UsageError: there is none.
    """
    names = tuple(sorted(file.stem for file in set_files()))
    if not names:
        raise UsageError("there is no set", where=paths.shown(paths.LOCKFILES), fix="write one, such as train.in")
    return names


def set_files() -> list[Path]:
    """The inputs of the sets, sorted."""
    return sorted(file for file in paths.LOCKFILES.glob("*.in") if file.stem not in ("base", "models"))


def chosen(name: str) -> tuple[str, ...]:
    """The one set that was asked for, or all of them.

    Raises:
        UsageError: there is no such set.
    """
    if name and name not in set_names():
        raise UsageError(f"no such set: {name}", where="lockfiles/", fix=f"there are: {', '.join(set_names())}")
    return (name,) if name else set_names()


def read_base() -> BaseInput:
    """Read `base.in`.

    Raises:
        UsageError: it is missing, no TOML, or says something unknown.
    """
    file = paths.LOCKFILES / "base.in"
    body = _load(file, {"packages", "without", "suites"})
    further = suites.read(body.get("suites", []), file)
    named = [suites.package(text, file) for text in _strings(file, body, "packages", required=True)]
    named += [package for one in further for package in one.packages]
    names = suites.once([name for name, _ in named], file)
    without = tuple(suites.name(text, file) for text in _strings(file, body, "without"))
    # What signs a suite is a part of what is meant: its keys, not where the file lies.
    keys = {"keys": found} if (found := [one.keys() for one in further if one.keys()]) else {}
    versions = tuple((name, version) for name, version in named if version)
    return BaseInput(names, without, _digest({"kind": "base", **body, **keys}), versions, further)


def read_set(name: str) -> SetInput:
    """Read `<name>.in`.

    Raises:
        UsageError: there is no such set, or the file is no TOML or says something unknown.
    """
    wanted = read_set_file(paths.LOCKFILES / f"{name}.in")
    if wanted.agrees and (wanted.agrees not in set_names() or wanted.agrees == name):
        raise UsageError(f"agrees with {wanted.agrees!r}, which is no other set", where=f"lockfiles/{name}.in", fix="mend it")
    return wanted


def read_set_file(file: Path) -> SetInput:
    """Read an input that may lie anywhere; the set is named after it.

    Raises:
        UsageError: as `read_set`.
    """
    name = file.stem
    body = _load(file, {"requires", "overrides", "sources", "sdists", "shims", "agrees"})
    sdists = []
    for package, entry in sorted(_mapping(file, body, "sdists").items()):
        sdists.append(_sdist(file, package, entry))
    requires, overrides = _strings(file, body, "requires", required=True), _strings(file, body, "overrides")
    shims = tuple(sorted(_mapping(file, body, "shims").items()))
    plain_only = overrides + tuple(text for one in sdists for text in (*one.requires, *(one.build or ())))
    _check_requirements(file, requires + plain_only)
    for text in plain_only:
        if Requirement(text).url:
            what = f"an address where only a version may stand: {text!r}"
            raise UsageError(what, where=_line(file, text), fix="write the address in requires")
    plain = [canonicalize_name(one.name) for one in map(Requirement, requires) if one.marker is None]
    for twice in sorted({name for name in plain if plain.count(name) > 1}):
        raise UsageError(
            f"{twice} is asked for twice", where=paths.shown(file), fix="write one requirement, its bounds by commas"
        )
    taken = _origins(file, requires, _mapping(file, body, "sources"))
    for package, version in [*((sdist.name, sdist.version) for sdist in sdists), *shims]:
        if not _normal(package, version):
            what = f"not a package and its version: {package!r}, {version!r}"
            raise UsageError(what, where=_line(file, version), fix="write both in their normal form (PEP 503, PEP 440)")
    agrees = _mapping(file, body, "agrees")
    differs = agrees.get("except", {})
    if set(agrees) - {"with", "except"} or not isinstance(agrees.get("with", ""), str) or not isinstance(differs, dict):
        raise UsageError("[agrees] holds `with`, a set, and `except`, a table", where=paths.shown(file), fix="mend it")
    for package, reason in differs.items():
        if not _NAME.fullmatch(package) or not isinstance(reason, str) or not reason.strip():
            what = f"[agrees.except] takes a package's normal name and a reason: {package!r}, {reason!r}"
            raise UsageError(what, where=_line(file, str(reason)), fix="mend it")
    return SetInput(
        name,
        requires,
        overrides,
        tuple(sdists),
        shims,
        agrees.get("with", ""),
        tuple(sorted(differs.items())),
        _digest({"kind": "set", "name": name, **body}),
        taken,
    )


def place(wanted: SetInput, text: str) -> str:
    """Where a value of a set's input stands, for messages."""
    file = paths.LOCKFILES / f"{wanted.name}.in"
    return _line(file, text) if file.exists() else file.name


def _origins(file: Path, requires: tuple[str, ...], sources: dict[str, Any]) -> tuple[Origin, ...]:
    found: dict[str, Origin] = {}
    asked = {canonicalize_name(one.name) for one in map(Requirement, requires)}
    try:
        for text in requires:
            package = text
            if origin := origins.of_requirement(Requirement(text)):
                found[origin.name] = origin
        for package, entry in sources.items():
            if package not in asked:
                raise OriginError(
                    "nothing in requires asks for it by its normal name", f'add "{package}" to requires, or drop it'
                )
            if package in found:
                raise OriginError("it has an address in requires", "keep one of the two")
            found[package] = origins.of_source(package, entry)
    except OriginError as problem:
        # Not the whole requirement: an address may hold a login.
        where = f"sources.{package}" if package in sources else Requirement(package).name
        raise UsageError(f"{where}: {problem.what}", where=_line(file, package), fix=problem.fix) from None
    return tuple(origin for _, origin in sorted(found.items()))


def _sdist(file: Path, package: str, entry: object) -> SdistInput:
    if not isinstance(entry, dict) or not {"version", "requires"} <= set(entry):
        raise UsageError(f"sdists.{package} needs version and requires", where=paths.shown(file), fix="write both")
    if unknown := sorted(set(entry) - {"version", "requires", "build", "reproducible"}):
        fix = "known are version, requires, build, reproducible"
        raise UsageError(f"unknown key 'sdists.{package}.{unknown[0]}'", where=paths.shown(file), fix=fix)
    if not isinstance(entry["version"], str):
        # TOML reads 1.10 as the number 1.1.
        what = f"sdists.{package}.version is a string, in quotes: {entry['version']!r}"
        raise UsageError(what, where=paths.shown(file), fix="put it in quotes")
    if not isinstance(reproducible := entry.get("reproducible", True), bool):
        raise UsageError(f"sdists.{package}.reproducible is true or false", where=paths.shown(file), fix="mend it")
    requires, *build = (_strings(file, entry, key, above=f"sdists.{package}.") for key in ("requires", "build") if key in entry)
    return SdistInput(package, entry["version"], requires, build[0] if build else None, reproducible)


def _load(file: Path, known: set[str]) -> dict[str, Any]:
    if not file.exists():
        names = ", ".join(set_names())
        raise UsageError(f"no such input: {file.name}", where=paths.shown(file), fix=f"there are: base, {names}")
    body = reader.toml(file).body
    unknown = sorted(set(body) - known)
    if unknown:
        raise UsageError(f"unknown key {unknown[0]!r}", where=paths.shown(file), fix=f"known are {', '.join(sorted(known))}")
    return body


def _normal(package: str, version: object) -> bool:
    """Whether these are a package's name and a version, written as the packaging rules would."""
    try:
        return bool(_NAME.fullmatch(package)) and isinstance(version, str) and str(Version(version)) == version
    except InvalidVersion:
        return False


def _check_requirements(file: Path, texts: tuple[str, ...]) -> None:
    for text in texts:
        try:
            requirement = Requirement(text)
            for one in requirement.specifier:
                # The resolver knows no version that PEP 440 does not.
                Version(one.version.removesuffix(".*"))
        except (InvalidRequirement, InvalidVersion) as problem:
            reason, fix = str(problem).splitlines()[0], requirement_hint.of(text)
            raise UsageError(f"not a requirement: {text!r}: {reason}", where=_line(file, text), fix=fix) from None


def _line(file: Path, text: object) -> str:
    """Where a value of the input stands."""
    quoted = json.dumps(text, default=str, ensure_ascii=False)
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if quoted in line or f"'{text}'" in line or re.match(rf"\s*{re.escape(str(text))}\s*=", line):
            return f"{paths.shown(file)}:{number}"
    return paths.shown(file)


def _strings(file: Path, body: dict[str, Any], key: str, *, above: str = "", required: bool = False) -> tuple[str, ...]:
    value = body.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value) or (required and not value):
        what = f"{above}{key} must be a list of strings" + (", and not empty" if required else "")
        raise UsageError(what, where=paths.shown(file), fix="mend it")
    return tuple(value)


def _mapping(file: Path, body: dict[str, Any], key: str) -> dict[str, Any]:
    value = body.get(key, {})
    if not isinstance(value, dict):
        raise UsageError(f"{key} must be a table", where=paths.shown(file), fix=f"write [{key}]")
    return value


def _digest(body: dict[str, Any]) -> str:
    text = json.dumps({"format": FORMAT, **body}, sort_keys=True, separators=(",", ":"), default=repr)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
