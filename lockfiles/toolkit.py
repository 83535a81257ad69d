"""`toolkit.txt`: Pinwheel's own dependencies, resolved from pyproject.toml, as requirements with hashes that pip enforces."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from common import console, paths
from common.errors import LockError, MissingEnvironmentError, UsageError
from common.files import write_whole
from common.offline import offline
from lockfiles.fixes import Target
from lockfiles.python import cooldown, wheels

_RELOCK = "run `invoke lock`"
_HEAD = "# Written by `invoke lock` from pyproject.toml. Edit that, not this: `invoke lock --check` refuses a hand edit.\n"


def path() -> Path:
    """Where it lies."""
    return paths.LOCKFILES / "toolkit.txt"


def versions(body: str = "") -> dict[str, str]:
    """The versions by name, of what is locked or of a body that is to be; none without a lock."""
    text = body or _text()
    return {match[1]: match[2] for match in re.finditer(r"^([a-z0-9-]+)==([^\s;]+)", text, re.MULTILINE)}


def resolve(upgrade: str, days: Callable[[], int], fixes: Mapping[str, Target] | None = None) -> str:
    """Resolve it; returns the body of the file. Where nothing was edited or asked for, that is the body it has.

    Args:
        upgrade: a package that may move, `all`, or nothing; another name is somebody else's.
        days: tells the days of the cooldown; may ask the network.
        fixes: what moves because of a known defect.

    Raises:
        LockError: the requirements cannot all hold.
        MissingEnvironmentError: the index does not answer.
    """
    fixes = fixes or {}
    named = upgrade == "all" or canonicalize_name(upgrade) in versions()
    # Offline it does not resolve: it is locked for every platform, so its wheels are not all here.
    if offline() or not (named or fixes):
        try:
            check()
            return _text().removeprefix(_head_of(_text()))
        except LockError:
            if offline():
                what = "pyproject.toml changed, and resolving the toolkit needs your index"
                raise MissingEnvironmentError(what, fix="run without --offline") from None
    locked = dict.fromkeys(versions(), _date() or today())
    project = _project()
    pins = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    chosen = {canonicalize_name(upgrade)} - {"all"} if named else frozenset[str]()
    asked = cooldown.asked_for(pins) | chosen
    window = cooldown.window(days(), asked, locked, fixes={name: target.until for name, target in fixes.items()})
    moving = [*([upgrade] if named else []), *(target.constraint for target in fixes.values())]
    with console.step("resolving the toolkit") as notes:
        body = wheels.resolve_toolkit(paths.ROOT / "pyproject.toml", _text(), moving, window, asked)
        notes.append(f"{sum(1 for line in body.splitlines() if line[:1].isalnum())} packages")
    return body


def write(body: str) -> None:
    """Write it, whole or not at all; the same body keeps its date and every byte."""
    text = _text()
    if text != _head(body, _date()) + body:
        write_whole(path(), _head(body, today()) + body)


def check() -> None:
    """Check it against pyproject.toml and its own checksum; asks no network.

    Raises:
        LockError: it is missing, stale, or was edited.
    """
    text = _text()
    head = _head_of(text)
    if head != _head(text.removeprefix(head), _date()):
        raise LockError("toolkit.txt is stale or was edited by hand", where=paths.shown(path()), fix=_RELOCK)


def _project() -> dict[str, Any]:
    file = paths.ROOT / "pyproject.toml"
    try:
        project: dict[str, Any] = tomllib.loads(file.read_text())["project"]
        return {key: project[key] for key in ("requires-python", "dependencies", "optional-dependencies")}
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise UsageError(f"not a project: {problem}", where=paths.shown(file), fix="restore it from git") from None


def _text() -> str:
    """The lock; nothing where there is none, or what is there is no text."""
    return path().read_text(errors="replace") if path().exists() else ""


def _head_of(text: str) -> str:
    return "".join(line + "\n" for line in text.splitlines() if re.match(r"# [A-Za-z]", line))


def _date() -> str:
    match = re.search(r"^# date = (\d{4}-\d\d-\d\d)$", _text(), re.MULTILINE)
    return match[1] if match else ""


def today() -> str:
    """The day, UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _head(body: str, date: str) -> str:
    project = _project()
    asked = json.dumps([project["requires-python"], project["dependencies"], project["optional-dependencies"]])
    return (
        f"{_HEAD}# date = {date}\n"
        f"# inputs = sha256:{hashlib.sha256(asked.encode()).hexdigest()}\n"
        f"# checksum = sha256:{hashlib.sha256((date + body).encode()).hexdigest()}\n"
    )
