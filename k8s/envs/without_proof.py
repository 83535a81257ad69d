"""Who may deploy in an emergency what does not carry the proof that is asked for: `without-proof` in an environment's file.

Keys:
    people: by git's `user.name`, or as user@machine; without the key anybody may. The environment `production` names them.
    hours: for how long such a deploy holds, at most a month.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.reader import Keys

_MONTH = 30 * 24


@dataclass(frozen=True, slots=True)
class WithoutProof:
    """What the file says.

    Attributes:
        people: names, or accounts; empty: anybody.
        hours: for how long.
    """

    people: frozenset[str]
    hours: int


def parse(top: Keys, *, strict: bool) -> WithoutProof | None:
    """Take the key out of an environment's file; None where it is absent: nobody may.

    Args:
        top: the file.
        strict: whether people must be named.

    Raises:
        UsageError: it holds something else than it may.
    """
    if "without-proof" not in top:
        return None
    keys = top.below("without-proof")
    people, hours = frozenset(keys.texts("people", ())), keys.number("hours", 1, _MONTH)
    keys.end()
    if strict and not people:
        raise keys.refused("people", "production names who may deploy without proof")
    return WithoutProof(people, hours)
