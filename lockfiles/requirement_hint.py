"""What to write for a line that is no requirement (PEP 508): most of them are copied from pip's requirements files."""

from __future__ import annotations

import re

# What such a line looks like, and what says the same in an input; the first that fits.
_KNOWN = (
    (r"(-r|-c|--requirement|--constraint)\b", "an input reads no other file: write what stands in that one here, line by line"),
    (r".*\s--hash\b", "leave --hash out: the lock holds the hash of each file"),
    (r".*\s#", "write the comment behind the quotes"),
    (r"(-e|--editable)\b|[./~]|[^\s:]*\.(whl|zip|tar\.\w+)$", 'write "NAME", and [sources] NAME = { path = "…" }'),
    (r"-", "options of pip have no place here: what comes from another index, [sources] says"),
    (r"[\w.+-]+://", 'write "NAME @ ADDRESS", with the commit or the sha256: docs/locks.md'),
    (r"[\w.-]+(\[[^]]*\])?\s*=[^=]", "write == for one version"),
    (r".*==\s*[A-Za-z]", "write a version behind ==; without one, the newest is taken"),
)


def of(text: str) -> str:
    """What to write instead of a text that is no requirement."""
    return next((fix for pattern, fix in _KNOWN if re.match(pattern, text.strip())), "see PEP 508")
