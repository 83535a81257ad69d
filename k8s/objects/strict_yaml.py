"""YAML read strictly and written unambiguously.

Strict means: what PyYAML and kubectl's parser read differently (`yes`, `0o17`, `1_000`), what hides data (a key given twice)
and what hides structure (anchors, tags) is refused. A text that passes means the same to everybody who reads it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import yaml
from yaml._yaml import CParser
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from k8s.objects.findings import Finding, Path

# Line in the file, by path in the document.
Lines = Mapping[Path, int]
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_OCTAL = re.compile(r"[-+]?0[0-7]+")
_HEX = re.compile(r"[-+]?0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
# One parser's string is the other's number or boolean: words of YAML 1.1, other bases, and `_` between digits, which Go's
# parser passes over.
_AMBIGUOUS = re.compile(
    r"(?i:y|n|yes|no|on|off|[-+]?\.inf|\.nan|[-+]?0b[01_]+|[-+]?0o[0-7_]+|[-+]?0x(?=[0-9a-f_]*_)[0-9a-f_]*)|[-+]?0X[0-9a-fA-F_]+"
    r"|[-+]?(?=[0-9.])(?=[^_]*_)[0-9_]*\.?[0-9_]*(?:[eE][-+]?[0-9_]+)?"
)
_JSON = json.JSONDecoder()
# In JSON: an escape, two halves of one character as one; and what YAML takes only as an escape (YAML 1.2.2, 5.1).
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\.|[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", re.DOTALL
)
# What looks like a number, a date, a time or an address to some parser is written in quotes.
_NUMERIC = re.compile(r"[-+.0-9][-+.:_0-9a-fA-FxXoOTtZz]*|[-+.]?(?i:inf|infinity|nan)")
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
_PLAIN = re.compile(r"[A-Za-z0-9/._-][A-Za-z0-9/._@:+=-]*(?<!:)")
_TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge", "map", "seq")
}


class _RefusedError(Exception):
    def __init__(self, mark: Any, what: str, fix: str) -> None:
        self.line, self.what, self.fix = mark.line + 1, what, fix


class _Loader(Composer, CParser, SafeConstructor, Resolver):
    """PyYAML's composer over libyaml's events: several times as fast as its own scanner."""

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()
            raise _RefusedError(event.start_mark, f"an alias (*{event.anchor}) is used", "write the value out")
        return super().compose_node(parent, index)


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if node.style:  # Quoted, or a block.
        return text
    if _AMBIGUOUS.fullmatch(text):
        raise _RefusedError(node.start_mark, f"{text} means different things to different YAML parsers", _plain_form(text))
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    number: int | float
    for pattern, base in ((_INT, 10), (_OCTAL, 8), (_HEX, 16)):
        if pattern.fullmatch(text):
            number = int(text, base)
            break
    else:
        if not _FLOAT.fullmatch(text):
            return text
        number = float(text)
    # kubectl has whole numbers of 64 bits: of more digits it makes a float, of more than that a string.
    if not (_LEAST <= number <= _MOST if isinstance(number, int) else math.isfinite(number)):
        raise _RefusedError(node.start_mark, f"the number {text[:40]} has more than 64 bits", "put it in quotes, or write less")
    return number


def _plain_form(text: str) -> str:
    """How to write what only some parsers take for a number."""
    digits = text.replace("_", "")
    if re.fullmatch(r"[-+]?0o[0-7]+", digits):
        return f"write {digits.replace('0o', '0')}, or {int(digits, 8)}"
    if re.fullmatch(r"[-+]?[1-9][0-9]*|[-+]?0[xb][0-9a-fA-F]+", digits):
        return f"write {int(digits, 0)}, or put it in quotes"
    return "put it in quotes"


def _value(node: yaml.Node | None, path: Path, lines: dict[Path, int]) -> Any:
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


_UNREADABLE = (_RefusedError, yaml.YAMLError, RecursionError, ValueError)


def _unreadable(problem: Exception, file: str) -> Finding:
    if isinstance(problem, _RefusedError):
        return Finding(file, problem.line, "", "", problem.what, problem.fix)
    if isinstance(problem, yaml.YAMLError):
        mark = getattr(problem, "problem_mark", None)
        what = getattr(problem, "problem", None) or getattr(problem, "reason", None) or str(problem)
        return Finding(file, mark.line + 1 if mark else 1, "", "", f"not YAML: {what}", "mend the syntax")
    return Finding(file, 1, "", "", f"not readable: {type(problem).__name__}", "a manifest is small, shallow text")


def documents(text: str, file: str) -> Iterator[tuple[Any, Lines] | Finding]:
    """Each document of a YAML text with the line of every path in it; what cannot be read comes as a finding, the last.

    Args:
        text: of the file.
        file: as messages should name it.
    """
    # Each document may begin with a byte order mark (YAML 1.2.2, 5.2), in files that were joined for example.
    for start, part in _parts(re.sub("^\ufeff", "", text, flags=re.MULTILINE)):
        for one in _documents(part, file):
            if isinstance(one, Finding):
                yield replace(one, line=one.line + start)
            else:
                yield one[0], {path: line + start for path, line in one[1].items()} if start else one[1]


def _parts(text: str) -> list[tuple[int, str]]:
    """The JSON documents of a text, one after the other, in the form of YAML, each with the lines before it; else the text.

    kubectl takes such a stream. YAML knows neither an escaped slash nor a character written as two halves (RFC 8259, 7).
    """
    parts, place = [], len(text) - len(text.lstrip())
    while place < len(text):
        try:
            found, end = _JSON.raw_decode(text, place)
        except (ValueError, RecursionError):
            return [(0, text)]
        if not isinstance(found, (dict, list)):
            return [(0, text)]
        parts.append((text.count("\n", 0, place), _ESCAPE.sub(_as_yaml, text[place:end])))
        place = end + len(text[end:]) - len(text[end:].lstrip())
    return parts


def _as_yaml(match: re.Match[str]) -> str:
    written = match[0]
    if written == "\\/":
        return "/"
    if len(written) == 1:
        return f"\\u{ord(written):04x}"
    return f"\\U{ord(json.loads(chr(34) + written + chr(34))):08x}" if len(written) == 12 else written


def _documents(text: str, file: str) -> Iterator[tuple[Any, Lines] | Finding]:
    loader = None
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            lines: dict[Path, int] = {}
            yield _value(node, (), lines), lines
    except _UNREADABLE as problem:
        yield _unreadable(problem, file)
    finally:
        if loader is not None:
            loader.dispose()


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: FBT001 — PyYAML's signature
        super().increase_indent(flow, False)


def _is_text(node: yaml.ScalarNode) -> bool:
    try:
        return isinstance(_scalar(node), str)
    except _RefusedError:
        return False


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style: str | None = '"'
    if "\n" in text:
        # PyYAML's block style loses the line breaks that only Unicode knows.
        style = "|" if text.replace("\n", "").isprintable() else '"'
    else:
        node = yaml.ScalarNode("tag:yaml.org,2002:str", text, yaml.Mark("", 0, 0, 0, None, 0))
        plain = _PLAIN.fullmatch(text) and not (_AMBIGUOUS.fullmatch(text) or _NUMERIC.fullmatch(text)) and _is_text(node)
        style = None if plain else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump(bodies: Iterable[Mapping[str, Any]]) -> str:
    """Objects as YAML that every parser reads alike; the same objects always give the same text."""
    return yaml.dump_all(bodies, Dumper=_Dumper, sort_keys=False, width=1 << 20, allow_unicode=True)
