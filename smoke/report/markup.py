"""HTML and SVG as elements, not as text: what is put into one cannot break out of it, nor hide in it.

Answers, messages and names of a receipt are data that a broken image may have filled with anything.
"""

from __future__ import annotations

import unicodedata
from typing import TypeAlias
from xml.etree.ElementTree import Element, tostring

# An absent child is left out, as is an absent attribute.
Child: TypeAlias = "Element | str | None"
# Longer texts are cut: the receipt has them whole.
LONGEST = 1000
# Controls, marks that reorder or hide text, halves of a character, separators of lines, what no standard has given a meaning.
_ODD = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"})


def element(tag: str, *children: Child, **attributes: str | None) -> Element:
    """An element.

    Args:
        tag: of HTML or SVG.
        children: in order; texts are made visible and cut.
        attributes: by name, with `_` for `-`, and one at the end of a name that Python keeps for itself (`class_`).
    """
    made = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            made.set(name.rstrip("_").replace("_", "-"), visible(value))
    return add(made, *children)


def add(parent: Element, *children: Child) -> Element:
    """Append to an element, and return it."""
    for child in children:
        if isinstance(child, Element):
            parent.append(child)
        elif child is not None and len(parent):
            parent[-1].tail = (parent[-1].tail or "") + visible(cut(child))
        elif child is not None:
            parent.text = (parent.text or "") + visible(cut(child))
    return parent


def cut(text: str) -> str:
    """A text, or the beginning of a long one and how much is missing."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]} … and {len(text) - LONGEST:,} more characters, which the receipt has"


def visible(text: str) -> str:
    """A text in which every character can be seen: `⟨U+202E⟩` for one that would turn the rest around."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(f"⟨U+{ord(one):04X}⟩" if unicodedata.category(one) in _ODD else one for one in text)


def document(root: Element) -> str:
    """The whole page as text."""
    return f"<!doctype html>\n{tostring(root, encoding='unicode', method='html')}\n"
