"""Reads files with types: settings that people write (TOML, YAML) and records that Pinwheel writes (JSON, TOML).

Settings are read key by key with `Keys`: each refusal names file, key and fix, and an unknown key is refused, since a misspelt
one would otherwise be ignored silently. Records are dataclasses: `record` takes exactly their fields.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from common import paths
from common.errors import PinwheelError, UsageError

_Record = TypeVar("_Record")
_Value = TypeVar("_Value")


class Keys:
    """Typed access to one mapping of a file. Reading a key removes it; `end` refuses the keys that are left.

    Args:
        body: the mapping as parsed.
        file: as messages name it.
        where: the keys that lead to this mapping, `proof.policy`; empty for the file itself.
        fix: what to do about a refusal that has no fix of its own.
        error: the class of refusals.

    Raises:
        PinwheelError: `body` is no mapping with texts for keys. Of the class `error`, as all refusals here.
    """

    def __init__(
        self, body: Any, file: str, *, where: str = "", fix: str = "mend it", error: type[PinwheelError] = UsageError
    ) -> None:
        self.file, self.where, self.fix, self.error = file, where, fix, error
        if not isinstance(body, dict) or not all(isinstance(key, str) for key in body):
            raise self.refused("", f"expected a mapping, got {body!r}")
        self.body: dict[str, Any] = dict(body)

    def __contains__(self, key: str) -> bool:
        return key in self.body

    def refused(self, key: str, what: str, fix: str = "") -> PinwheelError:
        """The error about one key; about the mapping as a whole where `key` is empty."""
        place = ".".join(part for part in (self.where, key) if part)
        return self.error(f"{place + ': ' if place else ''}{what}", where=self.file, fix=fix or self.fix)

    def take(self, key: str, kind: type[_Value], expected: str, default: _Value | None = None) -> _Value:
        """The value of a key, of exactly one type.

        Args:
            key: to take.
            kind: `str`, `int`, `bool`, `list` or `dict`.
            expected: the kind of value, for messages: `a string`.
            default: where the key is absent; None: it must be there.
        """
        value = self.body.pop(key, default)
        if value is None:
            raise self.refused(key, "missing")
        if type(value) is not kind:
            raise self.refused(key, f"expected {expected}, got {value!r}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string; one that must be there may not be empty either."""
        value = self.take(key, str, "a string", default)
        if not value and default is None:
            raise self.refused(key, "expected a string, got ''")
        return value

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """A list of strings."""
        value = self.take(key, list, "a list of strings", None if default is None else list(default))
        if not all(isinstance(item, str) for item in value):
            raise self.refused(key, f"expected a list of strings, got {value!r}")
        return tuple(value)

    def number(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number from `low` to `high`."""
        value = self.take(key, int, f"a number from {low} to {high}", default)
        if not low <= value <= high:
            raise self.refused(key, f"expected a number from {low} to {high}, got {value}")
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:  # noqa: FBT001 - a value, not a mode
        """True or false."""
        return self.take(key, bool, "true or false", default)

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """One of `choices`; the first where the key is absent."""
        value = self.body.pop(key, choices[0])
        if value not in choices:
            raise self.refused(key, f"expected {' or '.join(choices)}, got {value!r}")
        return str(value)

    def below(self, key: str, *, optional: bool = False) -> Keys:
        """The mapping at a key; an empty one where an optional key is absent."""
        value = self.body.pop(key, {} if optional else None)
        if value is None:
            raise self.refused(key, "missing")
        return self._inner(key, value)

    def each(self, key: str) -> tuple[Keys, ...]:
        """The mappings in the list at a key; none where it is absent."""
        listed = self.take(key, list, "a list of tables", [])
        return tuple(self._inner(f"{key}[{number}]", value) for number, value in enumerate(listed))

    def end(self) -> None:
        """Refuse the first key that was not read."""
        for key in self.body:
            raise self.refused(key, "unknown key")

    def _inner(self, key: str, value: Any) -> Keys:
        where = ".".join(part for part in (self.where, key) if part)
        return Keys(value, self.file, where=where, fix=self.fix, error=self.error)


def toml(file: Path, *, fix: str = "mend it", error: type[PinwheelError] = UsageError) -> Keys:
    """The settings of a TOML file.

    Raises:
        PinwheelError: it cannot be read, or is no TOML; of the class `error`.
    """
    where = paths.shown(file)
    try:
        # Some editors begin a file with a byte order mark, which TOML does not know.
        return Keys(tomllib.loads(file.read_text(encoding="utf-8-sig")), where, fix=fix, error=error)
    except OSError as problem:
        raise error(f"cannot be read: {problem.strerror}", where=where, fix=fix) from None
    except UnicodeDecodeError:
        raise error("not UTF-8", where=where, fix="save it in UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as problem:
        raise error(f"not TOML: {problem}", where=where, fix=fix) from None


def record(kind: type[_Record], body: Any) -> _Record:
    """A parsed JSON or TOML value as a frozen dataclass: exactly its fields, each of exactly its type.

    Fields with a default may be absent. Tuples are arrays, an optional value may be null, `Literal` takes one of its values,
    and a float may be written as a whole number, but not as NaN or an infinity.

    Args:
        kind: the dataclass.
        body: the parsed value.

    Raises:
        ValueError: it is something else; names the field.
    """
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    needed = {name for name, field in fields.items() if _has_no_default(field)}
    if not isinstance(body, dict) or not needed <= body.keys() <= fields.keys():
        raise ValueError(f"{kind.__name__} needs the fields {', '.join(sorted(needed))}, and knows {', '.join(sorted(fields))}")
    return kind(**{name: _field(f"{kind.__name__}.{name}", hints[name], value) for name, value in body.items()})


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _field(where: str, hint: Any, value: Any) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, list):
        if inner[-1] is Ellipsis:
            return tuple(_field(where, inner[0], item) for item in value)
        if len(inner) == len(value):
            return tuple(_field(where, item_hint, item) for item_hint, item in zip(inner, value, strict=True))
    if origin is types.UnionType:
        return None if value is None else _field(where, inner[0], value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return record(hint, value)
    if origin is Literal and value in inner:
        return value
    # In Python bool is an int; and some programs write 1.0 as 1 in JSON.
    if hint is float and type(value) in {int, float} and math.isfinite(value):
        return float(value)
    if hint is not float and type(value) is hint:
        return value
    raise ValueError(f"{where} is {value!r}")
