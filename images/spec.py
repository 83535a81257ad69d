"""The image specs: `images/<role>/image.toml` over `images/shared.toml`.

Unknown keys are refused: a misspelt one would otherwise be ignored, silently.

A role is `train` or `api`, alone or with the family it belongs to: `api-cpu`, `train-cu128`. The two images of a family are
built and proven together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from common import paths, reader
from common.errors import UsageError
from common.reader import Keys
from images import budget, certificates, files_entry, values
from images.certificates import Certificate
from images.files_entry import FilesEntry
from lockfiles import lockfile
from lockfiles.model import Gpu, SetLock

# The family that stands in where there is no GPU; whatever its torch could do, it asks for none.
CPU = "cpu"
_LARGEST_UID = 2**31 - 1
_FIX = "mend it; docs/images.md tells what every key takes"


@dataclass(frozen=True, slots=True)
class Conflict:
    """The stated outcome for a path that two wheels claim with different bytes.

    Attributes:
        path: in the image, relative to the root.
        keep: the package whose file stays.
        drop: the package whose file goes.
        reason: why that is right.
    """

    path: str
    keep: str
    drop: str
    reason: str


@dataclass(frozen=True, slots=True)
class RecordError:
    """A file that a wheel's own RECORD describes wrongly, accepted by name; the lock's sha256 of the wheel still pins it.

    Attributes:
        package: the wheel's.
        version: for which this was looked at; another version is checked anew.
        path: in the wheel.
        reason: what was found.
    """

    package: str
    version: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Files of one package that no image needs.

    Attributes:
        package: whose.
        paths: patterns of paths in its wheel; `*` matches `/` too. Each must match something.
        reason: why nothing is lost.
    """

    package: str
    paths: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What an image spec says of one wheel's files; each must be met by some file.

    Attributes:
        dropped: paths in the image whose file loses to another package's.
        excused: paths in the wheel whose RECORD entry is known to be wrong.
        left_out: patterns of paths in the wheel, `*` matching `/` too, of files that no image holds.
    """

    dropped: frozenset[str] = frozenset()
    excused: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """One image.

    Attributes:
        role: short name, the folder's.
        name: repository name.
        set: the Python set it holds.
        about: the package whose version is the image's.
        title, description, licenses, source, vendor: OCI annotations.
        user, uid: who runs; the group has the same name and number.
        workdir: writable by the user.
        cmd: what runs by default.
        entrypoint: what runs before any command; without one, a command that is given replaces `cmd`.
        ports: TCP ports it may listen on.
        env: environment, sorted by name.
        labels: more of them, sorted by name.
        certificates: see `certificates.py`; first those of all images, then its own.
        conflicts: see `Conflict`.
        record_errors: see `RecordError`.
        left_out: see `LeftOut`; the same for all images, so that they share layers.
        files: see `FilesEntry`; first those of all images, then its own.
        budget: compressed bytes that all layers together may have.
    """

    role: str
    name: str
    set: str
    about: str
    title: str
    description: str
    licenses: str
    source: str
    vendor: str
    user: str
    uid: int
    workdir: str
    cmd: tuple[str, ...]
    entrypoint: tuple[str, ...]
    ports: tuple[int, ...]
    env: tuple[tuple[str, str], ...]
    labels: tuple[tuple[str, str], ...]
    certificates: tuple[Certificate, ...]
    conflicts: tuple[Conflict, ...]
    record_errors: tuple[RecordError, ...]
    left_out: tuple[LeftOut, ...]
    files: tuple[FilesEntry, ...]
    budget: int

    def rules(self, package: str) -> Rules:
        """All that is said of one package's files."""
        return Rules(
            frozenset(c.path for c in self.conflicts if c.drop == package),
            frozenset(e.path for e in self.record_errors if e.package == package),
            frozenset(path for left in self.left_out if left.package == package for path in left.paths),
        )


@dataclass(frozen=True, slots=True)
class GpuNeeds:
    """What an image asks of the host whose GPU it runs on.

    Attributes:
        image: the image's name, `llama-factory-api`.
        driver: the oldest branch of NVIDIA's driver, `580`.
        compute: major and oldest minor compute capability, ascending. A binary for 8.0 runs on 8.6, one for 8.6 not on 8.0, and
            neither on 9.0 (CUDA programming guide, "Binary Compatibility"). Just-in-time compiled PTX is not counted on.
    """

    image: str
    driver: int
    compute: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, image: str, driver: int, compute: Iterable[str]) -> GpuNeeds | None:
        """The needs as locks and receipts write them: branch of the driver, and capabilities such as `7.5`.

        Returns None where the driver is 0: the image asks for no GPU.
        """
        if not driver:
            return None
        oldest: dict[int, int] = {}
        for text in compute:
            major, minor = map(int, text.split("."))
            oldest[major] = min(minor, oldest.get(major, minor))
        return cls(image, driver, tuple(sorted(oldest.items())))

    def runs_on(self, capability: tuple[int, int]) -> bool:
        """Whether the image holds code for a GPU of this compute capability."""
        return any(major == capability[0] and minor <= capability[1] for major, minor in self.compute)

    def capabilities(self) -> str:
        """The compute capabilities for people: `7.5+, 8.x, 9.x`."""
        return ", ".join(f"{major}.{minor}+" if minor else f"{major}.x" for major, minor in self.compute)


def roles() -> tuple[str, ...]:
    """The images there are, sorted."""
    return tuple(sorted(file.parent.name for file in paths.IMAGES.glob("*/image.toml")))


def families() -> tuple[str, ...]:
    """The families of images there are, sorted; the first is the plain one, which has no name."""
    return tuple(sorted(role.partition("-")[2] for role in roles() if role.partition("-")[0] == "api"))


def pair(family: str = "") -> tuple[str, str]:
    """The roles of a family: the image that trains and the one that serves.

    A family without a train image of its own takes the plain one, which trains on the CPU as well.

    Raises:
        UsageError: there is no such family.
    """
    if family not in families():
        known = ", ".join(one for one in families() if one)
        raise UsageError(f"no such family of images: {family}", where="images/", fix=f"there are: {known}")
    suffix = f"-{family}" if family else ""
    return (f"train{suffix}" if f"train{suffix}" in roles() else "train"), f"api{suffix}"


def gpu(role: str, lock: SetLock) -> Gpu | None:
    """What an image of this role asks of a GPU host when it is made from this lock; None where it asks for no GPU."""
    return None if role.partition("-")[2] == CPU else lock.gpu


def gpu_needs(role: str) -> GpuNeeds | None:
    """What an image would ask of a GPU host if it were built from the lock of its set; None where it asks for no GPU.

    What an image asks for that was built or pushed stands in the build receipt and in `lockfiles/images.lock`.

    Raises:
        UsageError: there is no such image.
        LockError: its set is not locked, or the lock was edited.
    """
    image = read(role)
    asked = gpu(role, lockfile.read_set(image.set))
    return GpuNeeds.of(image.name, asked.driver, asked.compute) if asked else None


def read(role: str) -> ImageSpec:
    """Read the spec of one image.

    Raises:
        UsageError: there is no such image, or its spec says something unknown.
    """
    if role not in roles():
        raise UsageError(f"no such image: {role}", where="images/", fix=f"there are: {', '.join(roles())}")
    shared = reader.toml(paths.IMAGES / "shared.toml", fix=_FIX)
    own = reader.toml(paths.IMAGES / role / "image.toml", fix=_FIX)
    uid = shared.number("uid", 0, _LARGEST_UID)
    if uid < 1000:
        raise shared.refused("uid", f"{uid} is root's or a system account's", "images run as an ordinary user")
    workdir = values.folder(shared, "workdir")
    given = tuple(one for keys in (shared, own) for one in certificates.read(keys))
    user = values.account(shared, "user")
    # Who asks for a name gets one, also where a cluster chooses a uid that /etc/passwd does not name.
    names = {"USER": user, "LOGNAME": user}
    env = {**names, **certificates.environment(given), **values.environment(shared), **values.environment(own)}
    try:
        size = budget.parse(own.text("budget"))
    except ValueError as problem:
        raise own.refused("budget", str(problem)) from None
    image = ImageSpec(
        role=role,
        name=values.repository(own, "name"),
        **{key: values.package(own, key) for key in ("set", "about")},
        **{key: values.line(own, key) for key in ("title", "description")},
        licenses=values.licences(own, "licenses"),
        source=values.address(shared, "source"),
        vendor=values.line(shared, "vendor"),
        user=user,
        uid=uid,
        workdir=workdir,
        cmd=values.command(own, "cmd"),
        entrypoint=values.command(own, "entrypoint", ()),
        ports=values.ports(own, "ports"),
        env=tuple(sorted(env.items())),
        labels=tuple(sorted({**values.labels(shared), **values.labels(own)}.items())),
        certificates=given,
        conflicts=tuple(_conflict(entry) for entry in own.each("conflicts")),
        record_errors=tuple(_record_error(entry) for entry in own.each("record_errors")),
        left_out=tuple(_left_out(entry) for entry in shared.each("leave_out")),
        files=tuple(entry for keys in (shared, own) for entry in files_entry.read(keys, workdir)),
        budget=size,
    )
    shared.end()
    own.end()
    return image


def _conflict(entry: Keys) -> Conflict:
    stated = Conflict(
        values.path(entry, "path"), values.package(entry, "keep"), values.package(entry, "drop"), values.line(entry, "reason")
    )
    if stated.keep == stated.drop:
        raise entry.refused("drop", f"{stated.drop} cannot be kept and dropped")
    entry.end()
    return stated


def _record_error(entry: Keys) -> RecordError:
    package, version = values.package(entry, "package"), values.line(entry, "version")
    stated = RecordError(package, version, values.record_path(entry, "path"), values.line(entry, "reason"))
    entry.end()
    return stated


def _left_out(entry: Keys) -> LeftOut:
    left_out = LeftOut(values.package(entry, "package"), entry.texts("paths"), values.line(entry, "reason"))
    if not left_out.paths or not all(left_out.paths):
        raise entry.refused("paths", f"expected patterns of paths, got {list(left_out.paths)!r}")
    entry.end()
    return left_out
