"""Shell scripts as far as their failures go: the commands, and what stands between them.

No parser: it knows quotes, comments, here-documents and substitutions, which is enough to say where one command ends and the
next begins (POSIX.1-2024, Shell Command Language, 2.3 Token Recognition, 2.9 Shell Commands).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

SHELLS = {"ash", "bash", "busybox", "dash", "ksh", "sh", "zsh"}
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)([A-Za-z_][A-Za-z0-9_]*)\1")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_CANNOT_FAIL = {":", "echo", "export", "printf", "set", "sleep", "trap", "true", "umask"}
# Begin and end what holds commands; they fail with what they hold.
_BLOCKS = {"case", "done", "esac", "fi", "for", "in", "select", "}"}
_CONDITIONS, _BODIES = {"elif", "if", "until", "while"}, {"do", "then"}
_NO_COMMAND = {"!", "{", "do", "elif", "else", "exec", "if", "then", "time", "until", "while"}


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a script.

    Attributes:
        words: as written, quotes left in; assignments before the command are left out.
        end: what ended it: `;`, a line break, `&`, `&&`, `||`, `|`, a closing bracket, or nothing at the end of the script.
        depth: how many substitutions and subshells it is in.
        tested: whether it is part of a condition: that it fails is an answer.
    """

    words: tuple[str, ...]
    end: str
    depth: int
    tested: bool = False

    @property
    def name(self) -> str:
        """The program, without its folder."""
        return self.words[0].strip("'\"").rpartition("/")[2] if self.words else ""


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the options its shell has from the command line.

    Attributes:
        commands: in the order they are written.
        options: names and letters: `e`, `errexit`, `pipefail`.
    """

    commands: Sequence[Command]
    options: frozenset[str]

    @classmethod
    def of(cls, text: str, flags: Sequence[str] = ()) -> Script:
        """A script as its shell gets it.

        Args:
            text: the script.
            flags: the words on the command line between the shell's name and the script.
        """
        commands = tuple(one for one in _commands(text) if one.words)
        first = commands[0] if commands and commands[0].depth == 0 else None
        options = _options(flags)
        if first and first.name == "set" and first.end in {";", "\n", "&&", ""}:
            options |= _options(first.words[1:])
        return cls(commands, options)

    @property
    def stops_at_failure(self) -> bool:
        """Whether the first command that fails ends it."""
        return bool(self.options & {"e", "errexit"})

    def hidden(self) -> str:
        """What of it may fail without anybody noticing; empty when nothing may."""
        top = [one for one in self.commands if one.depth == 0]
        for one, after in itertools.pairwise(top):
            if one.name in _CANNOT_FAIL or one.tested or (one.name in _BLOCKS and one.end != "|"):
                continue
            if one.end == "|" and "pipefail" not in self.options:
                return f"`{_brief(one)}` may fail before the pipe, and only what comes after it counts"
            if one.end == "||" and after.name in _CANNOT_FAIL:
                return f"`{_brief(one)}` may fail, and `{after.name}` hides it"
            if one.end in {";", "\n", "&"} and not self.stops_at_failure:
                return f"`{_brief(one)}` may fail, and what comes after it goes on"
        return ""


def _brief(command: Command) -> str:
    text = " ".join(command.words)
    return text if len(text) <= 40 else text[:39] + "…"


def _options(words: Sequence[str]) -> frozenset[str]:
    found: set[str] = set()
    for number, word in enumerate(words):
        if word.startswith("-") and not word.startswith("--"):
            found |= set(word[1:])
            if word.endswith("o") and number + 1 < len(words):
                found.add(words[number + 1])
    return frozenset(found)


def _commands(text: str) -> list[Command]:
    """All commands of a script, those in substitutions where they begin."""
    text = _without_heredocs(text.replace("\\\n", " "))
    found: list[Command] = []
    # For each open bracket: what closes it, and the words of the command that it interrupts.
    open_: list[tuple[str, list[str]]] = []
    words: list[str] = []
    word, quoted, place, testing = "", False, 0, False

    def end_word() -> None:
        nonlocal word, testing
        if not (words or open_) and word in _CONDITIONS | _BODIES:
            testing = word in _CONDITIONS
        if word and (words or not (_ASSIGNMENT.match(word) or word in _NO_COMMAND)):
            words.append(word)
        word = ""

    def end_command(how: str) -> None:
        end_word()
        found.append(Command(tuple(words), how, len(open_), testing))
        words.clear()

    while place < len(text):
        char, two = text[place], text[place : place + 2]
        step = 1
        if char == "\\":
            word += two
            step = 2
        elif char == "'" and not quoted:
            close = text.find("'", place + 1)
            close = len(text) if close < 0 else close
            word += text[place : close + 1]
            step = close + 1 - place
        elif char == '"':
            quoted = not quoted
            word += char
        elif two == "$(" or (char == "`" and not (open_ and open_[-1][0] == "`")) or (char == "(" and not quoted):
            open_.append(("`" if char == "`" else '")' if quoted else ")", [*words, word + "$"]))
            words.clear()
            word, quoted, step = "", False, len("$(") if two == "$(" else 1
        elif open_ and not quoted and char == open_[-1][0][-1]:
            end_command(char)
            closed, before = open_.pop()
            words[:] = before[:-1]
            word, quoted = before[-1], closed == '")'
        elif quoted:
            word += char
        elif two in {"&&", "||", ";;"}:
            end_command(two)
            step = 2
        elif two in {"&>", ">&", "<&", ">|"}:
            word += two
            step = 2
        elif char in ";\n&|":
            end_command(char)
        elif char in " \t\r":
            end_word()
        elif char == "#" and not word:
            line = text.find("\n", place)
            step = (len(text) if line < 0 else line) - place
        else:
            word += char
        place += step
    end_command("")
    return found


def _without_heredocs(text: str) -> str:
    lines, until = [], ""
    for line in text.split("\n"):
        if until:
            if line.strip() == until:
                until = ""
            continue
        lines.append(line)
        if match := _HEREDOC.search(line):
            until = match[2]
    return "\n".join(lines)
