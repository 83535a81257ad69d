"""A person's yes before a cluster is changed."""

from __future__ import annotations

import os
import sys

from common import console
from common.errors import UsageError


def ask(question: str, *, yes: bool) -> None:
    """Ask on the terminal; return only on a yes.

    Args:
        question: without its question mark.
        yes: it was given beforehand, by `--yes`.

    Raises:
        UsageError: the answer is no, or there is nobody to ask.
    """
    if yes:
        return
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"} or not sys.stdin.isatty():
        raise UsageError(
            "the plan above was not agreed to: there is no terminal to ask on",
            where=question,
            fix="look at it, then add --yes; nothing was sent",
        )
    console.out.print(f"  {question}? [y/N] ", end="", markup=False)
    try:
        answer = input()
    except EOFError:
        answer = ""
    if answer.strip().lower() not in {"y", "yes"}:
        raise UsageError("the plan was not agreed to", where=question, fix="nothing was sent")
