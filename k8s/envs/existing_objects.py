"""What is in the cluster though no set brings it, as an environment's file names it, and the line that names one thing more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from common.reader import Keys

# Kind, namespace (empty: of the whole cluster) and name; and the keys it holds, empty where nobody asks for them.
Elsewhere = Mapping[tuple[str, str, str], frozenset[str]]
# The key of the environment's file for each kind.
_KEYS = MappingProxyType(
    {
        "Secret": "secrets",
        "ConfigMap": "config-maps",
        "PersistentVolumeClaim": "claims",
        "ServiceAccount": "service-accounts",
        "PriorityClass": "priority-classes",
    }
)
_HOLDS_KEYS = ("Secret", "ConfigMap")
_OF_THE_CLUSTER = ("PriorityClass",)


def parse(top: Keys) -> tuple[dict[tuple[str, str], frozenset[str]], Elsewhere]:
    """Take the keys of this module out of an environment's file.

    Returns:
        Secrets by namespace and name, which `invoke secrets` makes; and what others make.

    Raises:
        UsageError: one holds something else than it may.
    """
    found: dict[tuple[str, str, str], frozenset[str]] = {}
    for kind, key in _KEYS.items():
        if kind in _HOLDS_KEYS:
            keys = top.below(key, optional=True)
            for place, held in keys.body.items():
                if not isinstance(held, list) or not held or not all(isinstance(one, str) for one in held):
                    raise keys.refused(place, "write the list of the keys it holds")
                found[(kind, *_place(keys, place, place))] = frozenset(held)
            continue
        for place in top.texts(key, ()):
            name = ("", place) if kind in _OF_THE_CLUSTER and place and "/" not in place else _place(top, key, place)
            found[(kind, *name)] = frozenset()
    secrets = {(space, name): keys for (kind, space, name), keys in found.items() if kind == "Secret"}
    return secrets, {place: keys for place, keys in found.items() if place[0] != "Secret"}


def _place(keys: Keys, key: str, written: str) -> tuple[str, str]:
    namespace, slash, name = written.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise keys.refused(key, f"write namespace/name, not {written!r}")
    return namespace, name


def line(kind: str, namespace: str, name: str, keys: Iterable[str] = ()) -> str:
    """What to write in an environment's file so that one object more is known."""
    place = f"{namespace}/{name}" if namespace else name
    return (
        f"`{_KEYS[kind]}: {{{place}: [{', '.join(sorted(keys)) or 'KEY'}]}}`"
        if kind in _HOLDS_KEYS
        else f"`{_KEYS[kind]}: [{place}]`"
    )
