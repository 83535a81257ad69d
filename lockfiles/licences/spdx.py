"""SPDX licence expressions: reading, writing, asking (SPDX specification 2.3, Annex D).

The list of identifiers, and which of them are no free licences, is license-expression's. What is not on it is named by a
`LicenseRef-` of ours; what could not be told is `LicenseRef-unknown`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

from license_expression import (
    AND,
    OR,
    ExpressionError,
    LicenseWithExceptionSymbol,
    Licensing,
    build_spdx_licensing,
    get_license_index,
)

# license-expression is published without types.
_Tree = Any

UNKNOWN = "LicenseRef-unknown"
PUBLIC_DOMAIN = "LicenseRef-public-domain"

# Terms that have no identifier on the list and are no free licences.
NVIDIA = "LicenseRef-NVIDIA-Proprietary"
NVIDIA_CUDA = "LicenseRef-NVIDIA-CUDA-EULA"
NVIDIA_SDK = "LicenseRef-NVIDIA-SDK-EULA"
NVIDIA_SOFTWARE = "LicenseRef-NVIDIA-Software-License"
INTEL = "LicenseRef-Intel-Developer-Tools-EULA"
PROPRIETARY = "LicenseRef-Proprietary"
_NON_FREE = ("LicenseRef-NVIDIA-", "LicenseRef-Intel-", PROPRIETARY)
# ScanCode's categories of licences that forbid some use or some change.
_NON_FREE_CATEGORIES = ("Commercial", "Proprietary Free", "Source-available")

_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
# An expression in earnest is far below both; what is above could exhaust the parser's stack.
_LONGEST, _DEEPEST = 20_000, 20


def canonical(text: str) -> str | None:
    """The expression in the list's own spelling (`gpl-2.0+` → `GPL-2.0-or-later`); None when it is no SPDX expression."""
    tree = _parse(text)
    return None if tree is None else str(tree)


def legs(expression: str) -> tuple[str, ...]:
    """What all applies at once: the operands of the outermost AND, each once, sorted; an OR in parentheses."""
    normal = _sorted(_tree(expression))
    # What stood twice may have hidden an operation: `(A AND B) OR (A AND B)`.
    while (again := _sorted(_tree(normal))) != normal:
        normal = again
    tree = _tree(normal)
    return tuple(_grouped(str(part)) for part in tree.args) if isinstance(tree, AND) else (_grouped(normal),)


def join(expressions: Iterable[str]) -> str:
    """All of these at once, sorted; `LicenseRef-unknown` when there is none."""
    parts = {leg for expression in expressions for leg in legs(expression)}
    if len(parts) == 1:
        return str(_tree(parts.pop()))
    return " AND ".join(sorted(parts)) if parts else UNKNOWN


def reference(name: str) -> str:
    """A `LicenseRef-` for a licence that is known by this name alone."""
    later = re.sub(r"(?<=\d)\+", "-or-later", name.removeprefix("LicenseRef-"))
    cleaned = re.sub(r"[^A-Za-z0-9.]+", "-", later).strip("-.")
    return f"LicenseRef-{cleaned}" if cleaned else UNKNOWN


def holds(expression: str, accept: Callable[[str], bool]) -> bool:
    """Whether the expression can be met by licences that are accepted: every leg of an AND, any of an OR.

    Args:
        expression: what is asked about; no SPDX expression counts as `LicenseRef-unknown`.
        accept: asked for each licence, `MIT` or `GPL-3.0-or-later WITH GCC-exception-3.1`.
    """
    return _holds(_tree(expression), accept)


def non_free(expression: str) -> bool:
    """Whether there is no way to use the package under free licences alone: some are a vendor's own, or forbid uses."""
    return not holds(expression, _is_free)


@functools.cache
def known_ids() -> frozenset[str]:
    """Every identifier on the list, of licences and exceptions."""
    return frozenset(_licensing().known_symbols)


def licence_ids() -> frozenset[str]:
    """The identifiers of licences alone."""
    return frozenset(name for name, symbol in _licensing().known_symbols.items() if not symbol.is_exception)


def _holds(tree: _Tree, accept: Callable[[str], bool]) -> bool:
    match tree:
        case AND():
            return all(_holds(part, accept) for part in tree.args)
        case OR():
            return any(_holds(part, accept) for part in tree.args)
        case _:
            return accept(str(tree))


def _is_free(licence: str) -> bool:
    return not licence.startswith(_NON_FREE) and licence.partition(" WITH ")[0] not in _not_free_ids()


def _sorted(tree: _Tree) -> str:
    for kind, word in ((AND, " AND "), (OR, " OR ")):
        if isinstance(tree, kind):
            parts = {_sorted(part) for part in _flat(tree, kind)}
            return word.join(sorted(map(_grouped, parts))) if len(parts) > 1 else parts.pop()
    return str(tree)


def _grouped(text: str) -> str:
    return f"({text})" if " OR " in text or " AND " in text else text


def _flat(tree: _Tree, kind: type[Any]) -> list[_Tree]:
    """The operands of nested operations of one kind; anything else is its own only one."""
    return [leaf for part in tree.args for leaf in _flat(part, kind)] if type(tree) is kind else [tree]


def _tree(text: str) -> _Tree:
    tree = _parse(text)
    return _parse(UNKNOWN) if tree is None else tree


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> _Tree | None:
    if len(text) > _LONGEST or text.count("(") > _DEEPEST:
        return None
    try:
        tree = _licensing().parse(text, strict=True)
    # On what is malformed in earnest its parser stumbles with errors of Python's own.
    except (ExpressionError, AssertionError, AttributeError, IndexError, TypeError, ValueError):
        return None
    if tree is None or not all(_is_licence(symbol) for symbol in tree.symbols):
        return None
    return tree


def _is_licence(symbol: _Tree) -> bool:
    if isinstance(symbol, LicenseWithExceptionSymbol):
        return _is_licence(symbol.license_symbol) and symbol.exception_symbol.key in known_ids()
    return symbol.key in known_ids() or _REFERENCE.fullmatch(symbol.key) is not None


@functools.cache
def _licensing() -> Licensing:
    return build_spdx_licensing(_index())


@functools.cache
def _index() -> list[dict[str, Any]]:
    index: list[dict[str, Any]] = get_license_index()
    return index


@functools.cache
def _not_free_ids() -> frozenset[str]:
    return frozenset(
        entry["spdx_license_key"]
        for entry in _index()
        if entry["category"] in _NON_FREE_CATEGORIES and entry["spdx_license_key"]
    )
