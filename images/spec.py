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
from images import budget, files_entry
from images.files_entry import FilesEntry
from lockfiles import lockfile
from lockfiles.model import Gpu, SetLock

# The family that stands in where there is no GPU; whatever its torch could do, it asks for none.
CPU = "cpu"
_LARGEST_UID = 2**31 - 1


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
        cmd: what runs by default; there is no entrypoint, so that a command given replaces it.
        ports: TCP ports it may listen on.
        env: environment, sorted by name.
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
    ports: tuple[int, ...]
    env: tuple[tuple[str, str], ...]
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
    shared = reader.toml(paths.IMAGES / "shared.toml")
    own = reader.toml(paths.IMAGES / role / "image.toml")
    uid = shared.number("uid", 0, _LARGEST_UID)
    if uid < 1000:
        raise shared.refused("uid", f"{uid} is root's or a system account's", "images run as an ordinary user")
    workdir = shared.text("workdir")
    try:
        size = budget.parse(own.text("budget"))
    except ValueError as problem:
        raise own.refused("budget", str(problem)) from None
    image = ImageSpec(
        role=role,
        **{key: own.text(key) for key in ("name", "set", "about", "title", "description", "licenses")},
        **{key: shared.text(key) for key in ("source", "vendor", "user")},
        uid=uid,
        workdir=workdir,
        cmd=own.texts("cmd"),
        ports=_ports(own),
        env=tuple(sorted({**_environment(shared), **_environment(own)}.items())),
        conflicts=tuple(Conflict(*_texts(entry, "path", "keep", "drop", "reason")) for entry in own.each("conflicts")),
        record_errors=tuple(
            RecordError(*_texts(entry, "package", "version", "path", "reason")) for entry in own.each("record_errors")
        ),
        left_out=tuple(_left_out(entry) for entry in shared.each("leave_out")),
        files=tuple(entry for keys in (shared, own) for entry in files_entry.read(keys, workdir)),
        budget=size,
    )
    shared.end()
    own.end()
    return image


def _texts(entry: Keys, *keys: str) -> tuple[str, ...]:
    texts = tuple(entry.text(key) for key in keys)
    entry.end()
    return texts


def _left_out(entry: Keys) -> LeftOut:
    left_out = LeftOut(entry.text("package"), entry.texts("paths"), entry.text("reason"))
    entry.end()
    return left_out


def _environment(keys: Keys) -> dict[str, str]:
    variables = keys.below("env", optional=True)
    return {name: variables.text(name, "") for name in tuple(variables.body)}


def _ports(keys: Keys) -> tuple[int, ...]:
    ports = keys.take("ports", list, "a list of ports")
    if not all(type(port) is int and 0 < port < 65536 for port in ports):
        raise keys.refused("ports", f"expected numbers from 1 to 65535, got {ports!r}")
    return tuple(ports)
