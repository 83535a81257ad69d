"""The scalars of a text that may be YAML or JSON, however it is written: with aliases, tags, escapes, keys that stand twice.

For finding what a text names, whoever reads it. A manifest is read by strict_yaml.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import NamedTuple

import yaml
from yaml._yaml import CParser
from yaml.composer import Composer
from yaml.resolver import BaseResolver

_BINARY = "tag:yaml.org,2002:binary"
# Mappings inside of each other; what is deeper is not looked at as YAML.
_DEEPEST = 40


class Scalar(NamedTuple):
    """A scalar of a text.

    Attributes:
        keys: the keys that lead to it, outermost first; a list has the key that it stands at.
        value: its text.
        beside: the other scalars of the same mapping, by key in lower case.
    """

    keys: tuple[str, ...]
    value: str
    beside: dict[str, str]


class _Loader(Composer, CParser, BaseResolver):
    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        Composer.__init__(self)
        BaseResolver.__init__(self)


def scalars(text: str) -> list[Scalar] | None:
    """Every scalar in the mappings and lists of a text; None where it is neither YAML nor JSON, or holds no mapping or list."""
    found: list[Scalar] = []
    structured = False
    try:
        loader = _Loader(text)
        try:
            while loader.check_node():
                if (node := loader.get_node()) is not None:
                    structured = structured or not isinstance(node, yaml.ScalarNode)
                    found += _below(node, (), {}, set(), 0)
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
    return found if structured else None


def _text(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        return ""
    if node.tag == _BINARY:
        try:
            return base64.b64decode(node.value).decode(errors="replace")
        except (binascii.Error, ValueError):
            pass
    return str(node.value)


def _below(node: yaml.Node, keys: tuple[str, ...], beside: dict[str, str], seen: set[int], depth: int) -> Iterator[Scalar]:
    if isinstance(node, yaml.ScalarNode):
        yield Scalar(keys, _text(node), beside)
        return
    # An alias leads to a node again: once is enough, and some lead in a circle.
    if id(node) in seen or depth > _DEEPEST:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _below(item, keys, {}, seen, depth + 1)
        return
    inside = {_text(key).lower(): _text(item) for key, item in node.value if isinstance(item, yaml.ScalarNode)}
    for key, item in node.value:
        yield from _below(item, (*keys, _text(key)), inside, seen, depth + 1)
        yield from _below(key, (*keys, ""), {}, seen, depth + 1) if not isinstance(key, yaml.ScalarNode) else ()
