"""Settings and records: what is read, and that each refusal names file, key and fix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from common.errors import LockError, PinwheelError, UsageError
from common.reader import Keys, record, toml


def keys(**body: Any) -> Keys:
    return Keys(body, "a/file.toml", fix="see the docs")


def test_each_kind_of_value_is_taken_out_and_nothing_is_left() -> None:
    found = keys(
        text="x",
        texts=["a", "b"],
        number=3,
        flag=True,
        choice="none",
        below={"inner": "y"},
        each=[{"name": "1"}, {"name": "2"}],
    )
    assert found.text("text") == "x"
    assert found.texts("texts") == ("a", "b")
    assert found.number("number", 0, 3) == 3
    assert found.flag("flag") is True
    assert found.choice("choice", ("nvidia", "none")) == "none"
    assert found.below("below").text("inner") == "y"
    assert [one.text("name") for one in found.each("each")] == ["1", "2"]
    found.end()


def test_what_is_absent_has_its_default() -> None:
    found = keys()
    assert found.text("text", "") == ""
    assert found.texts("texts", ()) == ()
    assert found.number("number", 0, 9, 4) == 4
    assert found.flag("flag", False) is False
    assert found.choice("choice", ("nvidia", "none")) == "nvidia"
    assert found.below("below", optional=True).body == {}
    assert found.each("each") == ()


@pytest.mark.parametrize(
    ("body", "read", "what"),
    [
        ({}, lambda one: one.text("a"), "a: missing"),
        ({"a": ""}, lambda one: one.text("a"), "a: expected a string, got ''"),
        ({"a": 1}, lambda one: one.text("a"), "a: expected a string, got 1"),
        ({"a": ["x", 1]}, lambda one: one.texts("a"), "a: expected a list of strings, got ['x', 1]"),
        ({"a": True}, lambda one: one.number("a", 0, 9), "a: expected a number from 0 to 9, got True"),
        ({"a": 10}, lambda one: one.number("a", 0, 9), "a: expected a number from 0 to 9, got 10"),
        ({"a": "yes"}, lambda one: one.flag("a"), "a: expected true or false, got 'yes'"),
        ({"a": "x"}, lambda one: one.choice("a", ("b", "c")), "a: expected b or c, got 'x'"),
        ({"a": {"b": {"c": 1}}}, lambda one: one.below("a").below("b").text("c"), "a.b.c: expected a string, got 1"),
        ({"a": [{}, {"x": 1}]}, lambda one: [table.end() for table in one.each("a")], "a[1].x: unknown key"),
        ({"a": [1]}, lambda one: one.each("a"), "a[0]: expected a mapping, got 1"),
        ({"a": {}}, lambda one: one.each("a"), "a: expected a list of tables, got {}"),
        ({"mine": 1}, lambda one: one.end(), "mine: unknown key"),
    ],
)
def test_a_refusal_names_file_key_and_fix(body: dict[str, Any], read: Any, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(keys(**body))
    assert caught.value.line() == f"{what} (a/file.toml): see the docs"


def test_a_file_that_is_no_toml_or_not_there_is_refused_as_the_caller_says(tmp_path: Path) -> None:
    with pytest.raises(LockError, match="cannot be read: No such file"):
        toml(tmp_path / "absent", error=LockError)
    (tmp_path / "bad").write_text("a = ")
    with pytest.raises(PinwheelError, match="not TOML: .*bad.*: mend it"):
        toml(tmp_path / "bad")
    (tmp_path / "latin").write_bytes(b'a = "\xe9"')
    with pytest.raises(UsageError, match="not UTF-8 .*latin.*: save it in UTF-8"):
        toml(tmp_path / "latin")


@dataclass(frozen=True)
class Inner:
    name: str
    pair: tuple[str, int] = ("x", 1)


@dataclass(frozen=True)
class Outer:
    count: int
    share: float
    state: Literal["begun", "ended"]
    inner: tuple[Inner, ...]
    maybe: Inner | None = None


GOOD: dict[str, Any] = {"count": 1, "share": 2, "state": "begun", "inner": [{"name": "a", "pair": ["b", 2]}, {"name": "c"}]}


def test_a_record_is_its_fields() -> None:
    assert record(Outer, GOOD) == Outer(1, 2.0, "begun", (Inner("a", ("b", 2)), Inner("c")))
    assert record(Outer, {**GOOD, "maybe": {"name": "d"}}).maybe == Inner("d")
    assert record(Outer, {**GOOD, "maybe": None}).maybe is None


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"count": True}, "Outer.count is True"),
        ({"count": 1.0}, "Outer.count is 1.0"),
        ({"share": float("nan")}, "Outer.share is nan"),
        ({"share": "2"}, "Outer.share is '2'"),
        ({"state": "lost"}, "Outer.state is 'lost'"),
        ({"inner": [{"name": 1}]}, "Inner.name is 1"),
        ({"inner": [{"name": "a", "pair": ["b"]}]}, r"Inner.pair is \['b'\]"),
        ({"inner": [{}]}, "Inner needs the fields name, and knows name, pair"),
        ({"inner": {}}, r"Outer.inner is \{\}"),
        ({"more": 1}, "Outer needs the fields count, inner, share, state, and knows"),
    ],
)
def test_a_record_is_nothing_else(change: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        record(Outer, {**GOOD, **change})


@pytest.mark.parametrize("body", [None, [], "text", 1])
def test_a_record_is_a_mapping(body: Any) -> None:
    with pytest.raises(ValueError, match="Outer needs the fields"):
        record(Outer, body)
