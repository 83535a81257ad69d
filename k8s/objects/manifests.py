"""Manifests: the Kubernetes objects in YAML files, each with the place it was written at."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from common import paths
from common.errors import UsageError
from k8s.objects import findings
from k8s.objects.findings import Finding
from k8s.objects.strict_yaml import documents

# Stands for standard input among places.
STDIN = Path("-")
_SUFFIXES = {".yaml", ".yml", ".json"}


class Identity(NamedTuple):
    """What the API server keys an object by. The version of its API group is no part of it.

    Attributes:
        group: `apps`; empty for the core group.
        kind: `Deployment`.
        namespace: empty for objects of the whole cluster.
        name: of the object.
    """

    group: str
    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One Kubernetes object as written in a file.

    Attributes:
        file: as a person would open it.
        body: the object.
        lines: line in the file of each path in the body.
        prefix: where the object lies in its document; not empty for the items of a `List`.
    """

    file: str
    body: dict[str, Any]
    lines: Mapping[findings.Path, int] = field(repr=False, compare=False)
    prefix: findings.Path = ()

    @property
    def api_version(self) -> str:
        """`apps/v1`."""
        return str(self.body.get("apiVersion", ""))

    @property
    def kind(self) -> str:
        """`Deployment`."""
        return str(self.body.get("kind", ""))

    @property
    def metadata(self) -> dict[str, Any]:
        """The object's metadata, empty when it is no mapping."""
        found = self.body.get("metadata")
        return found if isinstance(found, dict) else {}

    @property
    def name(self) -> str:
        """Its name, empty when it has none."""
        return str(self.metadata.get("name") or "")

    @property
    def namespace(self) -> str:
        """Its namespace, empty when it names none."""
        return str(self.metadata.get("namespace") or "")

    @property
    def identity(self) -> Identity:
        """What the API server keys it by."""
        group, slash, _ = self.api_version.partition("/")
        return Identity(group if slash else "", self.kind, self.namespace, self.name)

    @property
    def title(self) -> str:
        """The object for people: `Deployment llm-inference/llama-factory-inference`."""
        return f"{self.kind or 'object'} {self.namespace + '/' if self.namespace else ''}{self.name or '(no name)'}"

    def line(self, path: findings.Path = ()) -> int:
        """The line of a path in this object, or of the nearest thing around it that is written down."""
        full = self.prefix + path
        while full not in self.lines and full:
            full = full[:-1]
        return self.lines.get(full, 1)

    def finding(self, path: findings.Path, what: str, fix: str) -> Finding:
        """A finding about this object."""
        return Finding(self.file, self.line(path), self.title, findings.shown(self.prefix + path), what, fix)


def _objects(file: str, body: Any, lines: Mapping[findings.Path, int]) -> Iterator[Manifest | Finding]:
    """The objects of one document: itself, or the items of a List."""
    top = lines.get((), 1)
    if not isinstance(body, dict):
        yield Finding(file, top, "", "", "the document is not an object", "write apiVersion, kind and metadata")
        return
    whole = Manifest(file, body, lines)
    missing = [name for name in ("apiVersion", "kind") if not isinstance(body.get(name), str) or not body[name]]
    if missing:
        yield whole.finding((), f"{' and '.join(missing)} missing", "every Kubernetes object says what it is")
        return
    if not whole.kind.endswith("List") or "items" not in body:
        yield whole
        return
    items = body["items"]
    if not isinstance(items, list):
        yield whole.finding(("items",), "it is no list", "write the objects as a list")
        return
    # Of a list of one kind the items need not say what they are.
    kind = whole.kind.removesuffix("List")
    known = {"apiVersion": whole.api_version, "kind": kind} if kind else {}
    for number, item in enumerate(items):
        filled = {**known, **item} if isinstance(item, dict) else {}
        if all(isinstance(filled.get(key), str) for key in ("apiVersion", "kind")):
            yield Manifest(file, filled, lines, ("items", number))
        else:
            yield whole.finding(("items", number), "an item without apiVersion and kind", "write both")


def parse(text: str, file: str) -> Iterator[Manifest | Finding]:
    """The objects of one file's text, in order; what cannot be read comes as a finding.

    Empty documents are passed over, as kubectl does.
    """
    for one in documents(text, file):
        if isinstance(one, Finding):
            yield one
        elif one[0] is not None:
            yield from _objects(file, *one)


def files(places: Iterable[Path]) -> tuple[Path, ...]:
    """The manifest files that `places` name: files themselves, and every YAML or JSON file below a directory, sorted.

    Raises:
        UsageError: a place does not exist, or no file was found.
    """
    found: set[Path] = set()
    for place in places:
        if place == STDIN:
            found.add(place)
        elif place.is_dir():
            found |= {file for file in place.rglob("*") if file.suffix in _SUFFIXES and file.is_file()}
        elif place.is_file():
            found.add(place)
        else:
            raise UsageError("no such file or directory", where=str(place), fix="name manifests or a directory of them")
    if not found:
        raise UsageError(
            "no manifest found", where=", ".join(map(str, places)), fix="name files that end in .yaml, .yml or .json"
        )
    return tuple(sorted(found))


def load(places: Sequence[Path]) -> tuple[tuple[Manifest, ...], tuple[Finding, ...]]:
    """Read every object of the files that `places` name.

    Returns:
        The objects in the order of files and documents, and what could not be read.

    Raises:
        UsageError: a place does not exist, or no file was found.
    """
    objects: list[Manifest] = []
    refused: list[Finding] = []
    for file in files(places):
        named = "standard-input" if file == STDIN else paths.shown(file)
        try:
            text = (sys.stdin.buffer.read() if file == STDIN else file.read_bytes()).decode()
        except (OSError, UnicodeDecodeError) as problem:
            refused.append(Finding(named, 1, "", "", f"cannot be read: {problem}", "a manifest is UTF-8 text"))
            continue
        for one in parse(text, named if file == STDIN else paths.shown(file.absolute())):
            if isinstance(one, Manifest):
                objects.append(one)
            else:
                refused.append(one)
    return tuple(objects), tuple(refused)


def with_value(manifest: Manifest, path: findings.Path, value: Any) -> Manifest:
    """A copy of the manifest with another value at `path`; only the containers on the way are copied.

    Mappings on the way that are absent are made. Where something else stands in the place of one, it stays as it is: the schema
    check refuses it.
    """

    def put(old: Any, rest: findings.Path) -> Any:
        if not rest:
            return value
        if isinstance(rest[0], int):
            return [put(item, rest[1:]) if number == rest[0] else item for number, item in enumerate(old)]
        old = old or {}
        if not isinstance(old, dict):
            return old
        return {**old, rest[0]: put(old.get(rest[0]), rest[1:])}

    return replace(manifest, body=put(manifest.body, path))
