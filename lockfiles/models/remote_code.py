"""Code that a model's configuration names (`auto_map` of transformers): without it some loaders cannot load the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

# Of a configuration; those of tokenizers hold a few megabytes at most.
MOST = 16 << 20


def names_code(path: str) -> bool:
    """Whether a file is a configuration that may name code."""
    return path.rpartition("/")[2].endswith("config.json")


def findings(
    called: str, configurations: Mapping[str, bytes], locked: Iterable[str], is_there: Callable[[str], bool]
) -> Iterator[str]:
    """What a model's configurations name and its lock does not hold, one line for each configuration.

    Args:
        called: the model, as messages name it.
        configurations: bytes by path.
        locked: the paths of the locked files.
        is_there: whether the model's place has a file.
    """
    held = set(locked)
    for path, data in sorted(configurations.items()):
        folder = path.rpartition("/")[0]
        named = sorted(set(_named(data)))
        elsewhere = sorted({repo for repo, _ in named if repo})
        if elsewhere:
            yield (
                f"{called}: {path} names code in another repository, which is not locked: {', '.join(elsewhere)}; "
                "without a network only a loader that knows the architecture itself can load it"
            )
        files = sorted({f"{folder}/{file}" if folder else file for repo, file in named if not repo} - held)
        if files:
            gone = [file for file in files if not is_there(file)]
            fix = f"{gone[0]} is not there at all" if gone else 'allow = ["*.py"] with the reason takes it'
            yield (
                f"{called}: {path} names code that is not locked: {', '.join(files)}; only a loader that knows the "
                f"architecture itself can load it; {fix}"
            )


def _named(data: bytes) -> Iterator[tuple[str, str]]:
    """Repository, empty for the model's own, and file of each class that `auto_map` names."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return
    mapped = body.get("auto_map") if isinstance(body, dict) else None
    for value in _texts(mapped):
        repo, dashes, reference = value.rpartition("--")
        module = reference.rpartition(".")[0]
        if module:
            yield (repo if dashes else ""), module.replace(".", "/") + ".py"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
