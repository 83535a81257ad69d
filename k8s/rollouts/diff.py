"""What differs between two forms of an object, field by field: what a plan shows, and what drift is."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k8s.objects.findings import Path

# What the server writes of an object by itself.
_SERVERS = frozenset({"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"})
# By what the items of a list are told apart, in this order; a list without any is compared by position.
_KEYS = ("name", "mountPath", "containerPort", "port", "key", "type", "ip")
_LONG = 160


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that differs.

    Attributes:
        path: in the first form; positions in lists are those there, and None for an item that it has not.
        shown: for people, items of lists by their names.
        before: its value in the first form; None: absent.
        after: its value in the second.
    """

    path: tuple[str | int | None, ...]
    shown: str
    before: Any
    after: Any

    def lines(self, *, hidden: bool = False) -> list[str]:
        """The difference for people.

        Args:
            hidden: show no value.
        """
        if hidden:
            return [f"{self.shown}: (hidden) → (hidden)"]
        texts = [value for value in (self.before, self.after) if isinstance(value, str) and "\n" in value]
        if texts and isinstance(self.before or "", str) and isinstance(self.after or "", str):
            compared = difflib.ndiff((self.before or "").splitlines(), (self.after or "").splitlines())
            return [f"{self.shown}:", *(f"  {line}" for line in compared if line[:1] in "+-" and line[1:].strip())]
        return [f"{self.shown}: {brief(self.before)} → {brief(self.after)}"]


def brief(value: Any) -> str:
    """A value as a short text."""
    if value is None:
        return "(none)"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    text = " ".join(text.split())
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


def between(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """The fields in which two forms of an object differ, without what the server writes itself.

    Args:
        before: the first form.
        after: the second.
    """
    return list(_walk(_bare(before), _bare(after), (), ""))


def _bare(body: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in (body.get("metadata") or {}).items() if key not in _SERVERS}
    return {**{key: value for key, value in body.items() if key != "status"}, "metadata": metadata}


def _walk(before: Any, after: Any, path: tuple[str | int | None, ...], shown: str) -> Iterator[Difference]:
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            step = f"[{key!r}]" if "." in key or "/" in key else f".{key}" if shown else key
            yield from _walk(before.get(key), after.get(key), (*path, key), shown + step)
    elif isinstance(before, list) and isinstance(after, list) and before and after:
        names = _names(before, after)
        if names is None:
            for number in range(max(len(before), len(after))):
                pair = (before[number : number + 1] or [None])[0], (after[number : number + 1] or [None])[0]
                yield from _walk(*pair, (*path, number if number < len(before) else None), f"{shown}[{number}]")
            return
        old, new = names
        for name in [*old, *(name for name in new if name not in old)]:
            place = old.index(name) if name in old else None
            pair = before[place] if place is not None else None, after[new.index(name)] if name in new else None
            yield from _walk(*pair, (*path, place), f"{shown}[{name}]")
        if sorted(old) == sorted(new) and old != new:
            yield Difference(path, f"{shown} (order)", old, new)
    else:
        yield Difference(path, shown, before, after)


def _names(before: Sequence[Any], after: Sequence[Any]) -> tuple[list[str], list[str]] | None:
    """What the items of both lists are called; None where no key tells them apart."""
    if not all(isinstance(item, dict) for item in (*before, *after)):
        return None
    for key in _KEYS:
        old, new = ([str(item[key]) for item in items if key in item] for items in (before, after))
        if len(old) == len(set(old)) == len(before) and len(new) == len(set(new)) == len(after):
            return old, new
    return None


@dataclass(frozen=True, slots=True)
class Owner:
    """Who set a field last, by the server's own book.

    Attributes:
        manager: `kubectl-edit`.
        time: when, as the server says it.
    """

    manager: str
    time: str

    def __str__(self) -> str:
        return f"{self.manager} {self.time}".strip()


def owners(live: Mapping[str, Any], path: Sequence[str | int | None]) -> list[Owner]:
    """Who owns a field of a live object that came with its `managedFields`.

    Args:
        live: the object.
        path: of a `Difference` whose first form is this object.
    """
    found = []
    for entry in live.get("metadata", {}).get("managedFields", ()):
        if _owns(entry.get("fieldsV1") or {}, live, path):
            found.append(Owner(str(entry.get("manager", "")), str(entry.get("time", ""))))
    return found


def _owns(tree: Mapping[str, Any], here: Any, path: Sequence[str | int | None]) -> bool:
    for step in path:
        if isinstance(step, str):
            found = tree.get(f"f:{step}")
            here = here.get(step) if isinstance(here, dict) else None
        else:
            here = here[step] if step is not None and isinstance(here, list) and step < len(here) else None
            found = next((below for key, below in tree.items() if _is(key, here)), None)
        if found is None:
            return False
        if not found:  # A leaf: the list or map is owned as a whole.
            return True
        tree = found
    return True


def _is(key: str, item: Any) -> bool:
    """Whether a key of managedFields (`k:{"name":"x"}`, `v:"x"`) means this item of a list."""
    kind, _, text = key.partition(":")
    if kind == "k" and isinstance(item, dict):
        return all(item.get(name) == value for name, value in json.loads(text).items())
    return kind == "v" and json.loads(text) == item


def fields(entry: Mapping[str, Any]) -> Iterator[Path]:
    """The paths that one entry of `managedFields` owns; items of lists by their keys' values."""

    def leaves(tree: Mapping[str, Any], path: Path) -> Iterator[Path]:
        below = {key: item for key, item in tree.items() if key != "."}
        if not below:
            yield path
        for key, item in sorted(below.items()):
            kind, _, text = key.partition(":")
            step = text if kind == "f" else ",".join(map(str, json.loads(text).values())) if kind == "k" else text
            yield from leaves(item, (*path, step))

    yield from leaves(entry.get("fieldsV1") or {}, ())
