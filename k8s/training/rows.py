"""The rows of a dataset, looked at as LLaMA-Factory's converters read them (llamafactory/data/converter.py).

What they skip with a warning, or fail on an hour into a run, is refused here: a row without its answer, a role that is none, a
conversation that ends in a question.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Of one file; the rest is counted. A wrong column is wrong in every row.
_SHOWN = 5
_FORMATS = ("alpaca", "sharegpt", "openai")
_ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
_SHAREGPT = {"messages": "conversations"}
_OPTIONAL = ("history", "system", "tools", "images", "videos", "audios", "chosen", "rejected", "kto_tag")
# Columns of media, and what stands in a text in the place of each (extras/constants.py).
MEDIA = {"images": "<image>", "videos": "<video>", "audios": "<audio>"}
_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
_PAIRS, _FEEDBACK = {"dpo"}, {"kto"}
# A finding: line, path, what, fix; of an entry: path, what, fix.
Found = tuple[int, str, str, str]
Said = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Shape:
    """How the rows of an entry are read.

    Attributes:
        formatting: `alpaca`, `sharegpt` or `openai`.
        columns: the row's key for each column in use.
        tags: of messages.
        stage: of the training.
        takes: the columns of media that the template takes.
    """

    formatting: str
    columns: Mapping[str, str]
    tags: Mapping[str, str]
    stage: str
    takes: frozenset[str]


def shape(entry: Mapping[str, Any], stage: str, takes: frozenset[str]) -> tuple[Shape | None, list[Said]]:
    """How an entry of dataset_info.json says its rows are read, and what is wrong with it; no shape where something is."""
    wrong: list[Said] = []
    formatting = entry.get("formatting", "alpaca")
    if formatting not in _FORMATS:
        return None, [("formatting", f"{formatting!r} is no form of rows", f"write one of {', '.join(_FORMATS)}")]
    usual = _ALPACA if formatting == "alpaca" else _SHAREGPT
    columns = _texts(entry, "columns", {*usual, *_OPTIONAL}, wrong)
    tags = _texts(entry, "tags", set(_TAGS), wrong)
    ranking = entry.get("ranking", False)
    if not isinstance(ranking, bool):
        wrong.append(
            ("ranking", f"{ranking!r} is neither true nor false", "write true for rows with a better and a worse answer")
        )
    elif ranking != (stage in _PAIRS):
        what = f"the stage {stage} {'compares pairs of answers' if stage in _PAIRS else 'takes one answer for each row'}"
        wrong.append(("ranking", what, f'write `"ranking": {"true" if stage in _PAIRS else "false"}`, or take another dataset'))
    # An entry that lists columns has those and no others.
    columns = columns if "columns" in entry else dict(usual)
    needed = {"dpo": ("chosen", "rejected"), "kto": ("kto_tag",)}.get(stage, ())
    main = "prompt" if formatting == "alpaca" else "messages"
    for name in (main, *needed):
        if name not in columns:
            wrong.append(("columns", f"the stage {stage} needs the column {name}", f'write "{name}": "…", the key in the rows'))
    if wrong:
        return None, wrong
    return Shape(formatting, columns, {**_TAGS, **tags}, stage, takes), []


def _texts(entry: Mapping[str, Any], key: str, known: set[str], wrong: list[Said]) -> dict[str, str]:
    body = entry.get(key, {})
    if not isinstance(body, dict) or not all(isinstance(one, str) for one in body.values()):
        wrong.append((key, "not a mapping of names", 'write {"prompt": "…"}'))
        return {}
    for name in sorted(set(body) - known):
        wrong.append((f"{key}.{name}", "unknown name", f"known are {', '.join(sorted(known))}"))
    return dict(body)


def check(file: Path, how: Shape, media: dict[str, str]) -> Iterator[Found]:
    """What is wrong with the rows of a file; the media files they name are added to `media`, each with its first row."""
    count, shown = 0, 0
    seen: set[str] = set()
    try:
        for number, line, row in _rows(file):
            count += 1
            path = f"[{number}]"
            if not isinstance(row, dict):
                found = [("", "a row is a mapping", "write one object for each row")]
            else:
                seen |= row.keys()
                found = list(_alpaca(row, how) if how.formatting == "alpaca" else _conversation(row, how))
                found += [] if found else _shown_where(row, how)
                for name in _media(row, how):
                    media.setdefault(name, path)
            for below, what, fix in found:
                shown += 1
                if shown <= _SHOWN:
                    yield line, f"{path}.{below}" if below else path, what, fix
    except _UnreadableError as problem:
        yield problem.line, "", problem.what, problem.fix
        return
    if shown > _SHOWN:
        yield 1, "", f"{shown - _SHOWN} more findings in this file", "mend those above first: they may have one reason"
    if not count:
        yield 1, "", "no rows", "a training needs some"
    elif not shown:
        # A key that no row has is no column of the table, and reading it fails.
        for column, key in sorted(how.columns.items()):
            if key not in seen:
                yield 1, "", f"no row has {key!r}, the column {column}", "add it (empty will do), or list the columns there are"


def first_question(file: Path, how: Shape) -> str:
    """What the first row asks, as a user would; empty where it asks with more than text, or the file was refused."""
    try:
        _, _, row = next(_rows(file))
        if next(_media(row, how), ""):
            return ""
        if how.formatting == "alpaca":
            asked = [row.get(how.columns[name]) for name in ("prompt", "query") if name in how.columns]
            return "\n".join(text for text in asked if text)
        turns = row[how.columns["messages"]]
        turn = next(turn for turn in turns if turn[how.tags["role_tag"]] == how.tags["user_tag"])
        return str(turn[how.tags["content_tag"]])
    except (StopIteration, KeyError, TypeError, AttributeError, _UnreadableError):
        return ""


class _UnreadableError(Exception):
    def __init__(self, line: int, what: str, fix: str) -> None:
        self.line, self.what, self.fix = line, what, fix


def _rows(file: Path) -> Iterator[tuple[int, int, Any]]:
    """Number, line and content of each row. Lines of a list are not known: 1."""
    try:
        if file.suffix == ".json":
            body = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(body, list):
                raise _UnreadableError(1, "not a list of rows", "write [{…}, {…}]; one object a line is a .jsonl")
            for number, row in enumerate(body):
                yield number, 1, row
            return
        number = 0
        with file.open(encoding="utf-8") as opened:
            for at, line in enumerate(opened, 1):
                if line.strip():
                    try:
                        row = json.loads(line)
                    except ValueError as problem:
                        raise _UnreadableError(at, f"not JSON: {problem}", "one object a line") from None
                    yield number, at, row
                    number += 1
    except UnicodeDecodeError:
        raise _UnreadableError(1, "not UTF-8", "save it as UTF-8") from None
    except (ValueError, RecursionError) as problem:
        fix = "mend it; one object a line is a .jsonl"
        raise _UnreadableError(getattr(problem, "lineno", 1), f"not JSON: {problem}", fix) from None


def _alpaca(row: Mapping[str, Any], how: Shape) -> Iterator[Said]:
    column = how.columns
    for name in ("prompt", "query", "response", "system", "tools"):
        if name in column and not isinstance(row.get(column[name]), str | None):
            yield column[name], "not a text", "write a string"
    asked = [row.get(column[name]) for name in ("prompt", "query") if name in column]
    if not any(asked):
        yield column["prompt"], "nothing is asked", "write what the model is to answer, or remove the row"
    if how.stage in _PAIRS:
        wanted: tuple[str, ...] = ("chosen", "rejected")
    else:
        wanted = () if how.stage == "pt" else ("response",)
    for name in wanted:
        if not isinstance(row.get(column.get(name, "")), str):
            yield column.get(name, name), "no answer", "write what the model is to say, or remove the row"
    yield from _feedback(row, how)
    history = row.get(column.get("history", ""))
    if history is not None and not (
        isinstance(history, list) and all(isinstance(one, list) and len(one) == 2 for one in history)
    ):
        yield column["history"], "not a list of pairs", "write [[question, answer], …]"


def _feedback(row: Mapping[str, Any], how: Shape) -> Iterator[Said]:
    if how.stage in _FEEDBACK and not isinstance(row.get(how.columns["kto_tag"]), bool):
        yield how.columns["kto_tag"], "neither true nor false", "write whether the answer is wanted"


def _conversation(row: Mapping[str, Any], how: Shape) -> Iterator[Said]:
    key, tags = how.columns["messages"], how.tags
    turns = row.get(key)
    if not isinstance(turns, list) or not turns:
        yield key, "no messages", f'write [{{"{tags["role_tag"]}": …, "{tags["content_tag"]}": …}}, …]'
        return
    asks, answers = {tags["user_tag"], tags["observation_tag"]}, {tags["assistant_tag"], tags["function_tag"]}
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict) or not {tags["role_tag"], tags["content_tag"]} <= turn.keys():
            yield (
                f"{key}[{number}]",
                f"not a message with {tags['role_tag']} and {tags['content_tag']}",
                "write both, or set tags",
            )
            return
        role, roles = turn[tags["role_tag"]], {*asks, *answers, tags["system_tag"]}
        if not isinstance(role, str) or role not in roles:
            yield f"{key}[{number}]", f"{role!r} is no role", f"write one of {', '.join(sorted(roles))}, or set tags"
            return
    yield from _feedback(row, how)
    for name in ("chosen", "rejected") if how.stage in _PAIRS else ():
        if not isinstance(row.get(how.columns[name]), dict):
            yield how.columns[name], "no answer", "write one message"
    order = [turn[tags["role_tag"]] for turn in turns]
    order = order[1:] if order[0] == tags["system_tag"] else order
    if how.formatting == "openai":
        # Answers of several tools are one turn; those that nothing follows are dropped.
        tool = tags["observation_tag"]
        order = [role for role, after in zip(order, [*order[1:], tool], strict=True) if not role == after == tool]
    for number, role in enumerate(order):
        if role not in (answers if number % 2 else asks):
            yield key, f"{role!r} speaks out of turn: LLaMA-Factory skips the row", "let question and answer take turns"
            return
    # Of a pair the conversation ends with the question, otherwise with the answer.
    if len(order) % 2 != (1 if how.stage in _PAIRS else 0):
        yield (
            key,
            "the conversation does not end where it has to: LLaMA-Factory skips the row",
            ("end it with the question" if how.stage in _PAIRS else "end it with the answer"),
        )


def _shown_where(row: Mapping[str, Any], how: Shape) -> Iterator[Said]:
    """Media that the template does not take, or that do not stand in the row's texts as often as they are listed."""
    for name, mark in MEDIA.items():
        held = row.get(how.columns.get(name, "")) or []
        count = len(held) if isinstance(held, list) else 1
        if count and name not in how.takes:
            yield how.columns[name], f"the template takes no {name}", "take the template of a model that does"
        elif how.stage != "pt" and name in how.columns and name in how.takes:
            for text in _texts_of(row, how):
                if (marks := text.count(mark)) != count:
                    what = f"{count} {name}, and {mark} stands {marks} times in the texts"
                    yield how.columns[name], what, f"write {mark} where each belongs"
                    break


def _texts_of(row: Mapping[str, Any], how: Shape) -> list[str]:
    """What the model reads of a row as one text; of a pair one with each answer."""
    names: tuple[str, ...] = ("history", "prompt", "query", "response") if how.formatting == "alpaca" else ("messages",)
    if how.stage in _PAIRS:
        names = tuple(name for name in names if name != "response")
    common = "".join(json.dumps(row.get(how.columns[name]), ensure_ascii=False) for name in names if name in how.columns)
    if how.stage not in _PAIRS:
        return [common]
    return [common + json.dumps(row.get(how.columns[name]), ensure_ascii=False) for name in ("chosen", "rejected")]


def _media(row: Mapping[str, Any], how: Shape) -> Iterator[str]:
    """The files that a row names: one, a list, or (frames of a video) a list of lists."""
    waiting = [row.get(how.columns[name]) for name in MEDIA if name in how.columns]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, list):
            waiting += one
