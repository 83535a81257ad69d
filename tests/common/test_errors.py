"""Exit codes: one table in the code, the same in the README."""

from __future__ import annotations

import re

from common import errors, paths
from common.errors import MEANING, ExitCode, PinwheelError


def test_every_code_has_a_meaning_and_the_readme_prints_the_same_table() -> None:
    assert set(MEANING) == set(ExitCode)
    rows = dict(re.findall(r"^\| (\d+) \| (.+?) \|$", (paths.ROOT / "README.md").read_text(), re.MULTILINE))
    assert rows == {str(int(code)): meaning for code, meaning in MEANING.items()}


def test_every_error_class_has_a_code_of_its_own() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, PinwheelError)]
    codes = [c.exit_code for c in classes if c is not PinwheelError]
    assert len(codes) == len(set(codes)) == 13


def test_an_error_is_one_line_whatever_its_parts_hold() -> None:
    line = PinwheelError("a\nb", where="c\td", fix="e").line()
    assert line == "a b (c d): e"
