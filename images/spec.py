"""The image specs: `images/<role>/image.toml` over `images/shared.toml`.

Unknown keys are refused: a misspelt one would otherwise be ignored, silently.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import paths
from common.errors import UsageError


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


_SHARED: dict[str, type] = {"user": str, "uid": int, "workdir": str, "source": str, "vendor": str, "env": dict}
_OWN: dict[str, type] = {
    "name": str,
    "set": str,
    "about": str,
    "title": str,
    "description": str,
    "licenses": str,
    "cmd": list,
    "ports": list,
}
_OPTIONAL: dict[str, type] = {"env": dict, "conflicts": list, "record_errors": list}


def roles() -> tuple[str, ...]:
    """The images there are, sorted."""
    return tuple(sorted(file.parent.name for file in paths.IMAGES.glob("*/image.toml")))


def read(role: str) -> ImageSpec:
    """Read the spec of one image.

    Raises:
        UsageError: there is no such image, or its spec says something unknown.
    """
    if role not in roles():
        raise UsageError(f"no such image: {role}", where="images/", fix=f"there are: {', '.join(roles())}")
    shared = _load(paths.IMAGES / "shared.toml", _SHARED, {})
    file = paths.IMAGES / role / "image.toml"
    own = _load(file, _OWN, _OPTIONAL)
    conflicts = [Conflict(**e) for e in _tables(file, own.pop("conflicts", []), ("path", "keep", "drop", "reason"))]
    errors = [RecordError(**e) for e in _tables(file, own.pop("record_errors", []), ("package", "version", "path", "reason"))]
    if own["ports"] and not all(type(port) is int and 0 < port < 65536 for port in own["ports"]):
        raise UsageError("ports must be numbers from 1 to 65535", where=paths.shown(file), fix="mend it")
    if shared["uid"] < 1000:
        where = paths.shown(paths.IMAGES / "shared.toml")
        raise UsageError(
            f"uid {shared['uid']} is root's or a system account's", where=where, fix="images run as an ordinary user"
        )
    env = {**shared.pop("env"), **own.pop("env", {})}
    return ImageSpec(
        role=role,
        cmd=tuple(own.pop("cmd")),
        ports=tuple(own.pop("ports")),
        env=tuple(sorted(env.items())),
        conflicts=tuple(conflicts),
        record_errors=tuple(errors),
        **shared,
        **own,
    )


def _tables(file: Path, entries: list[Any], keys: tuple[str, ...]) -> list[dict[str, str]]:
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != set(keys) or not all(isinstance(v, str) for v in entry.values()):
            raise UsageError(f"an entry needs exactly {', '.join(keys)}", where=paths.shown(file), fix=f"mend {entry}")
    return entries


def _load(file: Path, needed: dict[str, type], optional: dict[str, type]) -> dict[str, Any]:
    where = paths.shown(file)
    try:
        body = tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise UsageError(f"not a readable TOML file: {problem}", where=where, fix="mend it") from None
    wrong = (set(needed) - set(body)) | (set(body) - set(needed) - set(optional))
    if wrong:
        raise UsageError(f"missing or unknown key: {', '.join(sorted(wrong))}", where=where, fix="see images/spec.py")
    for key, value in body.items():
        kind = {**needed, **optional}[key]
        if not isinstance(value, kind):
            raise UsageError(f"{key} must be a {kind.__name__}", where=where, fix="mend it")
    return body
