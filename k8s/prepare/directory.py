"""A set as the files of a directory, written all at once or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import paths
from common.errors import UsageError
from k8s.envs.environment import Environment
from k8s.objects import manifests, strict_yaml
from k8s.objects.manifests import Manifest
from k8s.prepare.rendered import RenderedSet

HEAD = "# Rendered by Pinwheel"


def files(rendered: RenderedSet, root: Path, env: Environment) -> dict[str, bytes]:
    """The files of a rendered directory, by path below it: one for each source file, with its objects in order.

    The bytes depend on nothing but the objects and the environment's name.
    """
    grouped: dict[str, list[Manifest]] = {}
    for manifest in rendered.objects:
        source = paths.ROOT / manifest.file
        name = str(source.relative_to(root)) if source.is_relative_to(root) else source.name
        grouped.setdefault(name, []).append(manifest)
    result = {}
    for name, group in sorted(grouped.items()):
        head = f"{HEAD} for environment {env.name}. Do not edit: the next deploy writes it anew.\n"
        result[name] = (head + strict_yaml.dump(manifest.body for manifest in group)).encode()
    return result


def current(target: Path) -> dict[str, bytes]:
    """The files of a directory we rendered earlier; empty when there is none.

    Raises:
        UsageError: something else lies there, which we would destroy.
    """
    if not target.exists():
        return {}
    found: dict[str, bytes] = {}
    for file in sorted(target.rglob("*")) if target.is_dir() else [target]:
        if file.is_dir() and not file.is_symlink():
            continue
        data = file.read_bytes() if file.is_file() and not file.is_symlink() else b""
        if not data.startswith(HEAD.encode()):
            fix = "move it away, or name another directory in the environment"
            raise UsageError("the target holds a file that Pinwheel did not render", where=paths.shown(file), fix=fix)
        found[str(file.relative_to(target))] = data
    return found


def write(target: Path, content: Mapping[str, bytes]) -> None:
    """Make `target` hold exactly these files: written beside it, then swapped in.

    Whoever looks sees the old set or the new one. Between the two renames of the swap the directory is away for an instant; if
    the second fails, the old one is put back.

    Raises:
        UsageError: it cannot be written.
    """
    old = target.with_name(f".{target.name}.old")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as problem:
        raise UsageError(
            f"the directory cannot be written: {problem.strerror}", where=str(target), fix="name another"
        ) from None
    try:
        fresh.chmod(0o755)
        for name, data in content.items():
            file = fresh / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
    except OSError as problem:
        raise UsageError(f"the directory cannot be written: {problem.strerror}", where=str(target), fix="see why") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    _sync(target.parent)


def _sync(folder: Path) -> None:
    """Bring the renames to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def objects_in(content: Mapping[str, bytes]) -> tuple[Manifest, ...]:
    """The objects of rendered files."""
    parsed = (one for name, data in sorted(content.items()) for one in manifests.parse(data.decode(errors="replace"), name))
    return tuple(one for one in parsed if isinstance(one, Manifest))


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What happens to each name, for people: created, changed, removed; unchanged ones are left out."""
    result = []
    for name in sorted({*before, *after}):
        if name not in before:
            result.append((name, "created"))
        elif name not in after:
            result.append((name, "removed"))
        elif before[name] != after[name]:
            result.append((name, "changed"))
    return result
