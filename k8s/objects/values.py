"""What a schema says of values beyond their types: lists whose items differ, values that are listed, numbers in a range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from k8s.objects.findings import Finding, Path
from k8s.objects.manifests import Manifest

# Of the keys that tell the items of a list apart: what an item has that does not say it.
_DEFAULT_KEYS = {"protocol": "TCP"}
# How a value of a type is written.
_HOW = {
    dict: "write a map",
    list: "write a list",
    str: "write a text",
    bool: "write true or false, without quotes",
    int: "write a whole number, without quotes",
    float: "write a number, without quotes",
}


def twins(manifest: Manifest, value: list[Any], node: Mapping[str, Any], path: Path) -> Iterator[Finding]:
    """Items of a list that one server-side apply cannot tell apart: it refuses the object, other ways of sending it do not."""
    keys = node.get("x-kubernetes-list-map-keys", ())
    single = node.get("x-kubernetes-list-type") == "set"
    seen: list[Any] = []
    for number, item in enumerate(value):
        same = item if single else [item.get(key, _DEFAULT_KEYS.get(key)) for key in keys] if isinstance(item, dict) else None
        if same in seen and same and (single or same[0] is not None):
            shown = item if single else ", ".join(str(part) for part in same)
            what = f"{shown} stands twice"
            yield manifest.finding((*path, number), what, "keep one: a server-side apply refuses two that it cannot tell apart")
        seen.append(same)


def bounds(manifest: Manifest, value: Any, node: Mapping[str, Any], path: Path) -> Iterator[Finding]:
    """A value outside of what a schema lists or limits."""
    listed = node.get("enum")
    if isinstance(listed, list) and value not in listed:
        yield manifest.finding(path, f"{value!r} is none of the values there are", f"write {' or '.join(map(str, listed))}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = node.get("minimum", value), node.get("maximum", value)
        if not low <= value <= high:
            bounds = [f"at least {low}"] * ("minimum" in node) + [f"at most {high}"] * ("maximum" in node)
            yield manifest.finding(path, f"{value} is out of range", f"write {' and '.join(bounds)}")


def wrong_type(manifest: Manifest, path: Path, value: Any, types: tuple[type, ...]) -> Finding:
    """The finding about a value of another type than its place takes."""
    wanted = " or ".join(sorted({"map" if t is dict else "list" if t is list else t.__name__ for t in types}))
    inner = isinstance(value, (dict, list))
    hint = "put it in quotes" if str in types and not inner else _HOW[types[0]]
    brief = ("a map" if isinstance(value, dict) else "a list") if inner else f"{type(value).__name__} {value!r}"
    return manifest.finding(path, f"expected {wanted}, got {brief}", hint)
