"""Reading and writing manifests: strict YAML with positions in, unambiguous YAML out.

Strict means: what PyYAML and kubectl's parser read differently (`yes`, `0o17`, `1_000`), what hides data (a key given twice)
and what hides structure (anchors, tags) is refused. A manifest that passes means the same to everybody who reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from common import paths
from common.errors import UsageError
from k8s import findings
from k8s.findings import Finding

_SUFFIXES = {".yaml", ".yml", ".json"}
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_OCTAL = re.compile(r"[-+]?0[0-7]+")
_HEX = re.compile(r"[-+]?0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
# One parser's string is the other's number or boolean.
_AMBIGUOUS = re.compile(
    r"(?i:y|n|yes|no|on|off|[-+]?\.inf|\.nan|[-+]?0b[01_]+|[-+]?0o[0-7_]+|[-+]?0x[0-9a-f]*_[0-9a-f_]*)|[-+]?[0-9][0-9_]*_[0-9_.]*"
)
_PLAIN = re.compile(r"[A-Za-z0-9/._-][A-Za-z0-9/._@:+=-]*(?<!:)")
_TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge", "map", "seq")
}


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
    def identity(self) -> tuple[str, str, str, str]:
        """What the API server keys it by: group (the version is not part of it), kind, namespace, name."""
        group, slash, _ = self.api_version.partition("/")
        return (group if slash else "", self.kind, self.namespace, self.name)

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


class _RefusedError(Exception):
    def __init__(self, mark: Any, what: str, fix: str) -> None:
        self.line, self.what, self.fix = mark.line + 1, what, fix


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event: yaml.AliasEvent = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
            raise _RefusedError(event.start_mark, f"an alias (*{event.anchor}) is used", "write the value out")
        return super().compose_node(parent, index)


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if node.style is not None:
        return text
    if _AMBIGUOUS.fullmatch(text):
        raise _RefusedError(node.start_mark, f"{text} means different things to different YAML parsers", "put it in quotes")
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    for pattern, base in ((_INT, 10), (_OCTAL, 8), (_HEX, 16)):
        if pattern.fullmatch(text):
            return int(text, base)
    return float(text) if _FLOAT.fullmatch(text) else text


def _value(node: yaml.Node | None, path: findings.Path, lines: dict[findings.Path, int]) -> Any:
    if node is None:  # An empty file.
        return None
    lines[path] = node.start_mark.line + 1
    if node.tag not in _TAGS:
        raise _RefusedError(node.start_mark, f"the YAML tag {node.tag} is used", "write a plain value")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, number), lines) for number, item in enumerate(node.value)]
    body: dict[str, Any] = {}
    for key_node, item in node.value:
        key = _scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            raise _RefusedError(key_node.start_mark, "a key is not a string", "put it in quotes")
        if key in body:
            raise _RefusedError(key_node.start_mark, f"the key {key} stands twice", "keep one of the two")
        body[key] = _value(item, (*path, key), lines)
        lines[(*path, key)] = key_node.start_mark.line + 1
    return body


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
    if (whole.api_version, whole.kind) != ("v1", "List") or not isinstance(items, list):
        yield whole.finding(
            (), f"{whole.kind} is a server's answer, not something to apply", "give each object its own document"
        )
        return
    for number, item in enumerate(items):
        if isinstance(item, dict) and isinstance(item.get("kind"), str) and isinstance(item.get("apiVersion"), str):
            yield Manifest(file, item, lines, ("items", number))
        else:
            yield whole.finding(("items", number), "an item without apiVersion and kind", "write both")


_UNREADABLE = (_RefusedError, yaml.YAMLError, RecursionError, ValueError)


def _unreadable(problem: Exception, file: str) -> Finding:
    if isinstance(problem, _RefusedError):
        return Finding(file, problem.line, "", "", problem.what, problem.fix)
    if isinstance(problem, yaml.YAMLError):
        mark = getattr(problem, "problem_mark", None)
        what = getattr(problem, "problem", None) or str(problem)
        return Finding(file, mark.line + 1 if mark else 1, "", "", f"not YAML: {what}", "mend the syntax")
    return Finding(file, 1, "", "", f"not readable: {type(problem).__name__}", "a manifest is small, shallow text")


def parse(text: str, file: str) -> Iterator[Manifest | Finding]:
    """The objects of one file's text, in order; what cannot be read comes as a finding.

    Empty documents are passed over, as kubectl does.
    """
    loader = None
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            lines: dict[findings.Path, int] = {}
            body = _value(node, (), lines)
            if body is not None:
                yield from _objects(file, body, lines)
    except _UNREADABLE as problem:
        yield _unreadable(problem, file)
    finally:
        if loader is not None:
            loader.dispose()


def document(text: str, file: str) -> tuple[Any, Finding | None]:
    """The one YAML document of a settings file, read as strictly as a manifest; or what is wrong with it."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return _value(node, (), {}), None
    except _UNREADABLE as problem:
        return None, _unreadable(problem, file)
    finally:
        if loader is not None:
            loader.dispose()


def files(places: Iterable[Path]) -> tuple[Path, ...]:
    """The manifest files that `places` name: files themselves, and every YAML or JSON file below a directory, sorted.

    Raises:
        UsageError: a place does not exist, or no file was found.
    """
    found: set[Path] = set()
    for place in places:
        if place.is_dir():
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
        try:
            text = file.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as problem:
            refused.append(Finding(paths.shown(file), 1, "", "", f"cannot be read: {problem}", "a manifest is UTF-8 text"))
            continue
        for one in parse(text, paths.shown(file.absolute())):
            if isinstance(one, Manifest):
                objects.append(one)
            else:
                refused.append(one)
    return tuple(objects), tuple(refused)


def with_value(manifest: Manifest, path: findings.Path, value: Any) -> Manifest:
    """A copy of the manifest with another value at `path`; only the containers on the way are copied.

    Mappings on the way that are absent are made.
    """

    def put(old: Any, rest: findings.Path) -> Any:
        if not rest:
            return value
        if isinstance(rest[0], int):
            return [put(item, rest[1:]) if number == rest[0] else item for number, item in enumerate(old)]
        old = old or {}
        return {**old, rest[0]: put(old.get(rest[0]), rest[1:])}

    return replace(manifest, body=put(manifest.body, path))


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: FBT001 — PyYAML's signature
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style: str | None = "|"
    if "\n" not in text:
        node = yaml.ScalarNode("tag:yaml.org,2002:str", text, yaml.Mark("", 0, 0, 0, None, 0))
        plain = _PLAIN.fullmatch(text) and not _AMBIGUOUS.fullmatch(text) and isinstance(_scalar(node), str)
        style = None if plain else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump(bodies: Iterable[Mapping[str, Any]]) -> str:
    """Objects as YAML that every parser reads alike; the same objects always give the same text."""
    return yaml.dump_all(bodies, Dumper=_Dumper, sort_keys=False, width=1 << 20, allow_unicode=True)
