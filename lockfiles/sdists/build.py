"""Wheels that no index has, built from a locked sdist by the backend it declares (PEP 517), in a closed room (sandbox.py).

The backend and what it needs are wheels that the lock names; nothing of the package's code runs while it is resolved.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.exceptions import InstallerError
from installer.sources import WheelFile
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from common import console, paths
from common.errors import BuildError, LockError
from common.files import sha256_file, write_whole
from lockfiles import store
from lockfiles.debian import rootfs
from lockfiles.inputs import SdistInput
from lockfiles.model import Artifact, BaseLock, SetLock, Wheel
from lockfiles.python import metadata, shim, wheels
from lockfiles.sdists import builder, sandbox

# Bumped when a change of this room changes what is built.
_FORMAT = 2
_OURS = "it is made on this machine, and came out otherwise than when it was locked; run `invoke lock`, or report it"
_THEIRS = "its build is not reproducible, as its input states: take the wheel from the mirror that has it, or run `invoke lock`"
_READY = "take a ready wheel of it"
_PYTHON = "/given/env/bin/python"
# Bytes. The largest METADATA in use has 0.2 MB.
_LARGEST_METADATA = 16 << 20
# Requirements (PEP 508) → the wheels that they resolve to, all in the store.
Resolve = Callable[[tuple[str, ...]], tuple[Artifact, ...]]


@dataclass(frozen=True, slots=True)
class Workshop:
    """A folder with an sdist and an environment that can build it; what happens in it, happens in a closed room."""

    tree: Path
    given: Path
    sdist: Artifact

    def read(self, step: str) -> object:
        """What the steps `read` and `ask` of builder.py leave, as JSON.

        Raises:
            BuildError, MissingEnvironmentError: as `sandbox.run_in`.
        """
        with tempfile.TemporaryDirectory(prefix="pinwheel-sdist-") as scratch:
            result = Path(scratch) / "result"
            what = f"reading {self.sdist.file}" if step == "read" else f"asking what {self.sdist.file} needs to be built"
            self._run(step, result, what)
            try:
                return json.loads(result.read_bytes()[:_LARGEST_METADATA])
            except ValueError:
                raise BuildError(f"{what} failed", where="it left no JSON", fix=_READY) from None

    def build(self, target: Path) -> Path:
        """Build the wheel into a folder; returns its path.

        Raises:
            BuildError: the build fails, or its file is not named as a wheel.
            MissingEnvironmentError: as `sandbox.run_in`.
        """
        what = f"building {self.sdist.file} to a wheel"
        name = self._run("build", target / "result", what)
        try:
            parse_wheel_filename(name)
        except InvalidWheelFilename:
            raise BuildError(f"{what} failed", where=f"it made {name!r}, which is no wheel", fix=_READY) from None
        return (target / "result").rename(target / name)

    def _run(self, step: str, result: Path, what: str) -> str:
        # Only a step that runs the package's code needs the environment. -P: nothing is imported from the current folder.
        python = "/usr/bin/python3.11" if step == "read" else _PYTHON
        argv = [python, "-P", "/given/builder.py", step, self.sdist.file]
        return sandbox.run_in(self.tree, self.given, argv, result, what=what)


@contextmanager
def workshop(base: BaseLock, sdist: Artifact, needs: tuple[Artifact, ...]) -> Iterator[Workshop]:
    """A workshop for an sdist, with these wheels in its environment; it lasts as long as the block.

    Raises:
        LockError: the bytes of a file are not the lock's.
        BuildError: a wheel among the needs is broken, or the base cannot be made.
    """
    with tempfile.TemporaryDirectory(prefix="pinwheel-sdist-") as scratch:
        given = Path(scratch)
        # Whoever builds in there is nobody.
        given.chmod(0o755)
        with store.opened(sdist) as source, (given / sdist.file).open("wb") as copy:
            shutil.copyfileobj(source, copy)
        shutil.copyfile(builder.__file__, given / "builder.py")
        for name in (sdist.file, "builder.py"):
            (given / name).chmod(0o644)
        _environment(given / "env", base.version("python3.11"), needs)
        yield Workshop(rootfs.made(base).tree, given, sdist)


def _environment(folder: Path, python: str, needs: tuple[Artifact, ...]) -> None:
    """A virtual environment (PEP 405) of the base's Python, at `/given/env`, with these wheels."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to("/usr/bin/python3.11")
    for name in ("python3", "python3.11"):
        (folder / "bin" / name).symlink_to("python")
    (folder / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\n")
    site = str(folder / "lib/python3.11/site-packages")
    headers = str(folder / "include/site/python3.11")
    places = {"purelib": site, "platlib": site, "scripts": str(folder / "bin"), "data": str(folder), "headers": headers}
    destination = SchemeDictionaryDestination(places, _PYTHON, "posix", overwrite_existing=True)
    for need in needs:
        try:
            with store.opened(need) as file, zipfile.ZipFile(file) as archive:
                # installer reads a wheel's name from its file's.
                archive.filename = need.file
                install(WheelFile(archive), destination, {})
        except (InstallerError, ValueError, AssertionError, KeyError, zipfile.BadZipFile, OSError) as problem:
            where = f"{need.file}, sha256 {need.sha256}"
            raise BuildError(f"a wheel that a build needs is broken: {problem}", where=where, fix="pin another") from None


def lock_built(base: BaseLock, wanted: SdistInput, sdist: Artifact, resolve: Resolve) -> Wheel:
    """Build a wheel twice, demand the same bytes, put it into the store and describe it for the lock.

    What came out is noted in the cache: while the store has the wheel, the same source is not built again.

    Args:
        base: in whose root file system it is built.
        wanted: what the input says of it.
        sdist: the source, in the store.
        resolve: finds the wheels that building needs.

    Raises:
        BuildError: the build fails, two builds differ, or the wheel is of another package or version.
        LockError: the built metadata asks for other packages than the input states, or the build's needs do not resolve.
        MissingEnvironmentError: this machine allows no closed room.
    """
    requires = _declared(base, sdist) if wanted.build is None else wanted.build
    needs = resolve(requires)
    inputs = [_FORMAT, rootfs.key(base), sdist.sha256, [need.sha256 for need in needs], asdict(wanted)]
    note = paths.cache("built", f"{hashlib.sha256(json.dumps(inputs).encode()).hexdigest()}.json")
    if (known := _noted(note)) is None:
        with ExitStack() as stack:
            shop = stack.enter_context(workshop(base, sdist, needs))
            asked = _requirements(sdist, shop.read("ask"))
            if more := tuple(text for text in asked if not _is_met(Requirement(text), needs)):
                needs = resolve((*requires, *more))
                shop = stack.enter_context(workshop(base, sdist, needs))
            known = (_built_twice(base, wanted, shop), needs)
        write_whole(note, json.dumps([asdict(known[0]), [asdict(need) for need in needs]]))
    return Wheel(wanted.name, wanted.version, known[0], sdist, build=known[1], reproducible=wanted.reproducible)


def _noted(note: Path) -> tuple[Artifact, tuple[Artifact, ...]] | None:
    """A wheel that was built before and the wheels that built it, if the store has them all."""
    try:
        made, needs = json.loads(note.read_text())
        found = Artifact(**made), tuple(Artifact(**need) for need in needs)
    except (OSError, ValueError, TypeError):
        return None
    return found if all(map(store.has, (found[0], *found[1]))) else None


def _declared(base: BaseLock, sdist: Artifact) -> tuple[str, ...]:
    with workshop(base, sdist, ()) as plain:
        return _requirements(sdist, plain.read("read"))


def _requirements(sdist: Artifact, said: object) -> tuple[str, ...]:
    try:
        if isinstance(said, list):
            return tuple(str(Requirement(text)) for text in said)
    except (InvalidRequirement, TypeError):
        pass
    raise BuildError(f"{sdist.file} states no valid build requirements", where=str(said)[:200], fix="state `build = [...]`")


def _is_met(requirement: Requirement, found: tuple[Artifact, ...]) -> bool:
    if requirement.marker and not requirement.marker.evaluate():
        return True
    named = [parse_wheel_filename(artifact.file)[:2] for artifact in found]
    name = canonicalize_name(requirement.name)
    return any(one == name and requirement.specifier.contains(version, prereleases=True) for one, version in named)


def _built_twice(base: BaseLock, wanted: SdistInput, shop: Workshop) -> Artifact:
    sdist, twice = shop.sdist, ", twice" if wanted.reproducible else ""
    with tempfile.TemporaryDirectory(prefix="pinwheel-sdist-") as scratch, console.step(f"building {sdist.file}{twice}"):
        made = []
        for number in ("1", "2") if wanted.reproducible else ("1",):
            folder = Path(scratch) / number
            folder.mkdir()
            made.append(shop.build(folder))
        _check(base, wanted, sdist, made[0])
        if different := _different(*made) if len(made) == 2 else "":
            raise BuildError(
                f"{sdist.file} gives another wheel at each build",
                where=different,
                fix=f"{_READY}, or state `reproducible = false` under [sdists.{wanted.name}]: it is then built once, "
                "and the provenance says so",
            )
        artifact = Artifact(made[0].name, made[0].stat().st_size, sha256_file(made[0]).removeprefix("sha256:"))
        store.add_file(artifact, made[0])
    return artifact


def _check(base: BaseLock, wanted: SdistInput, sdist: Artifact, wheel: Path) -> None:
    """Compare a wheel with what the input says of it."""
    name, version, _, tags = parse_wheel_filename(wheel.name)
    about = _metadata(sdist, wheel)
    for said_name, said_version in ((name, str(version)), (about["Name"] or "", about["Version"] or "")):
        if (canonicalize_name(said_name), said_version) != (wanted.name, str(Version(wanted.version))):
            what = f"{sdist.file} builds {said_name} {said_version}, and not {wanted.name} {wanted.version}"
            fix = "a version from git needs what tells it: state `build`, or " + _READY
            raise BuildError(what, where=wheel.name, fix=fix)
    if not tags & set(wheels.platform_tags(base.version("python3.11"), base.version("libc6"))):
        raise BuildError(f"{sdist.file} builds a wheel that the base cannot run", where=wheel.name, fix=_READY)
    needed = [Requirement(text) for text in about.get_all("Requires-Dist") or []]
    stated = {str(Requirement(text)) for text in wanted.requires}
    environment = metadata.target(base.version("python3.11")) | {"extra": ""}
    # What an extra or another platform asks for need not be stated; where the set asks for the extra, the whole lock's check
    # misses what is not.
    plain = {str(one) for one in needed if one.marker is None or one.marker.evaluate(environment)}
    asked = {str(one) for one in needed}
    if not plain <= stated <= asked:
        raise LockError(
            f"{sdist.file} requires {sorted(plain)}, the input states {sorted(stated)}",
            fix=f"write `requires = {json.dumps(sorted(plain | (stated & asked)))}` under [sdists.{wanted.name}]",
        )


def _metadata(sdist: Artifact, wheel: Path) -> Message:
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = next(i for i in archive.infolist() if i.filename.endswith(".dist-info/METADATA"))
            if info.file_size <= _LARGEST_METADATA:
                return HeaderParser().parsestr(archive.read(info).decode())
            problem = "its METADATA is too large"
    except StopIteration:
        problem = "it has no METADATA"
    except (zipfile.BadZipFile, UnicodeError, OSError, NotImplementedError, RuntimeError) as error:
        problem = str(error)
    raise BuildError(f"{sdist.file} builds a broken wheel: {problem}", where=wheel.name, fix=_READY)


def _different(one: Path, other: Path) -> str:
    """The first files that differ in two wheels; empty if the wheels are equal byte for byte."""
    if one.name == other.name and sha256_file(one) == sha256_file(other):
        return ""
    if one.name != other.name:
        return f"{one.name} and {other.name}"
    with zipfile.ZipFile(one) as first, zipfile.ZipFile(other) as second:
        hold = [{i.filename: (i.CRC, i.file_size, i.external_attr, i.date_time) for i in z.infolist()} for z in (first, second)]
    names = sorted(name for name in hold[0].keys() | hold[1].keys() if hold[0].get(name) != hold[1].get(name))
    # RECORD differs because others do.
    names = [name for name in names if not name.endswith(".dist-info/RECORD")] or names or ["the order of its files"]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def make_missing(base: BaseLock, lock: SetLock) -> None:
    """Bring the wheels that are ours to make into the store; their bytes must be the lock's.

    Raises:
        LockError: they are not.
        BuildError: a build fails.
        MissingEnvironmentError: this machine allows no closed room.
    """
    for wheel in lock.wheels:
        if store.has(wheel.artifact):
            continue
        if wheel.shim:
            with store.adding(wheel.artifact, fix=_OURS) as out:
                out.write(shim.contents(wheel.name, wheel.version)[1])
        elif wheel.sdist:
            if wheel.build is None:
                what = f"{wheel.name} was locked when locks did not name yet what builds a wheel"
                raise LockError(what, where=f"lockfiles/{lock.name}.lock", fix="run `invoke lock`")
            with (
                tempfile.TemporaryDirectory(prefix="pinwheel-sdist-") as scratch,
                console.step(f"building {wheel.sdist.file}"),
                workshop(base, wheel.sdist, wheel.build) as shop,
            ):
                made = shop.build(Path(scratch))
                store.add_file(wheel.artifact, made, fix=_OURS if wheel.reproducible else _THEIRS)
