"""Server-side apply as an API server does it, over the schemas of kubernetes-validate: merging, ownership, conflicts.

An object is kept as its leaves, path → value, where an item of a list with keys is addressed by its keys. Owning a field is
then owning a path, and merging is a union of paths.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from k8s.objects.schema import Schema

Path = tuple[str, ...]
_DEFAULTS = {"protocol": "TCP"}
# Of everything that is written.
TIME = "2026-01-01T00:00:00Z"


class ConflictError(Exception):
    """Fields that other managers own, by manager; and which of these wrote the object whole."""

    def __init__(self, fields: dict[str, list[str]], updaters: set[str]) -> None:
        self.fields, self.updaters = fields, updaters
        super().__init__(str(fields))


@dataclass
class Stored:
    """One object: its leaves, who owns which, and who of them wrote it whole instead of applying."""

    leaves: dict[Path, Any] = field(default_factory=dict)
    owners: dict[str, set[Path]] = field(default_factory=dict)
    updaters: set[str] = field(default_factory=set)

    def body(self) -> dict[str, Any]:
        return build(self.leaves)

    def copy(self) -> Stored:
        return Stored(dict(self.leaves), {who: set(paths) for who, paths in self.owners.items()}, set(self.updaters))

    def apply(self, schema: Schema, definition: str, body: Mapping[str, Any], manager: str, *, force: bool = False) -> None:
        new = dict(flatten(schema, _node(definition), body))
        owned: dict[str, list[str]] = {}
        for path, value in new.items():
            for who, paths in self.owners.items():
                if who != manager and path in paths and self.leaves.get(path) != value:
                    owned.setdefault(who, []).append(shown(path))
        if owned and not force:
            raise ConflictError(owned, self.updaters)
        for path in self.owners.get(manager, set()) - set(new):
            if not any(path in paths for who, paths in self.owners.items() if who != manager):
                self.leaves.pop(path, None)
        # What two managers say alike belongs to both.
        taken = {path for path, value in new.items() if self.leaves.get(path) != value}
        self.leaves.update(new)
        for who, paths in self.owners.items():
            if force and who != manager:
                paths -= taken
        self.owners[manager] = set(new)

    def replace(self, schema: Schema, definition: str, body: Mapping[str, Any], manager: str) -> None:
        """Write the object whole: what it changes belongs to the writer from then on."""
        new = dict(flatten(schema, _node(definition), body))
        changed = {path for path, value in new.items() if path not in self.leaves or self.leaves[path] != value}
        for paths in self.owners.values():
            paths -= changed | (set(self.leaves) - set(new))
        self.leaves = new
        self.owners[manager] = self.owners.get(manager, set()) | changed
        self.updaters.add(manager)

    def managed_fields(self, api: str) -> list[dict[str, Any]]:
        """Who owns which field, as the server gives it out."""
        result = []
        for manager, paths in sorted(self.owners.items()):
            tree: dict[str, Any] = {}
            for path in sorted(paths - _IDENTITY):
                here = tree
                for step in path:
                    here = here.setdefault(f"k:{step}" if step.startswith("{") else f"f:{step}", {})
            operation = "Update" if manager in self.updaters else "Apply"
            common = {"apiVersion": api, "fieldsType": "FieldsV1", "time": TIME}
            result.append({"manager": manager, "operation": operation, **common, "fieldsV1": tree})
        return result


# What names an object belongs to nobody.
_IDENTITY: set[Path] = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}


def _node(definition: str) -> dict[str, Any]:
    """The schema node of a kind; one that says nothing where it has no schema: each list is one field then."""
    return {"$ref": f"#/$defs/{definition}"} if definition else {}


def shown(path: Path) -> str:
    text = ""
    for step in path:
        if step.startswith("{"):
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(step).items()) + "]"
        else:
            text += f".{step}"
    return text


def flatten(schema: Schema, node: Mapping[str, Any], value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The leaves of a value: scalars, empty maps, and lists that are replaced as a whole."""
    keys = node.get("x-kubernetes-list-map-keys")
    if "$ref" in node:
        node = schema.definitions[node["$ref"].rsplit("/", 1)[1]]
    if isinstance(value, dict) and value:
        for key, item in value.items():
            below = node.get("properties", {}).get(key) or node.get("additionalProperties") or {}
            yield from flatten(schema, below if isinstance(below, dict) else {}, item, (*path, key))
    elif isinstance(value, list) and keys and all(isinstance(item, dict) for item in value):
        for item in value:
            step = json.dumps({key: item.get(key, _DEFAULTS.get(key)) for key in keys})
            yield from flatten(schema, node.get("items", {}), item, (*path, step))
    else:
        yield path, value


def build(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """The object that has these leaves."""
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        here = tree
        for step in path[:-1]:
            below = here.setdefault(step, {})
            here = below if isinstance(below, dict) else here
        here[path[-1]] = value
    result = _lists(tree)
    assert isinstance(result, dict)
    return result


def _lists(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    if tree and all(key.startswith("{") for key in tree):
        return [_lists(item) for item in tree.values()]
    return {key: _lists(item) for key, item in tree.items()}
