"""Telling licences by their texts: characteristic phrases of the licences on the SPDX list (SPDX specification 2.3, Annex D).

A phrase is looked for in a text without case, punctuation and line ends, as SPDX's matching guidelines (Annex B) compare texts.
What is not recognised is not reported: never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from lockfiles.licences import spdx

_LLVM = "Apache-2.0 WITH LLVM-exception"
_GCC = "GPL-3.0-or-later WITH GCC-exception-3.1"

# Phrase (a regular expression over the reduced text) → licence.
_PHRASES = {
    r"apache license v2\.0 with llvm exceptions": _LLVM,
    r"(?:apache license version 2\.0 january 2004|under the apache license version 2\.0)": "Apache-2.0",
    r"apache software license version 1\.1": "Apache-1.1",
    r"gcc runtime library exception version 3\.1|version 3\.1 of the gcc runtime library exception": _GCC,
    r"mozilla public license (?:version|v) 1\.1": "MPL-1.1",
    r"mozilla public license (?:version|v) 2\.0": "MPL-2.0",
    r"\b0 clause bsd\b|\bbsd 0 clause\b": "0BSD",
    r"\b2 clause bsd\b|\bbsd 2 clause\b": "BSD-2-Clause",
    r"\b3 clause bsd\b|\bbsd 3 clause\b": "BSD-3-Clause",
    r"fsf all permissive license": "FSFAP",
    r"altered source versions must be plainly marked as such": "Zlib",
    r"boost software license version 1\.0": "BSL-1.0",
    r"(?:cc0 1\.0 universal|waiver of copyright .{0,200}no copyright .{0,80}public domain)": "CC0-1.0",
    r"creative commons attribution ?sharealike 3\.0": "CC-BY-SA-3.0",
    r"attribution noncommercial 4\.0 international": "CC-BY-NC-4.0",
    r"this is free and unencumbered software released into the public domain": "Unlicense",
    r"beopen com license agreement for python 2\.0": "Python-2.0",
    r"(?:psf license agreement for python|python software foundation license version 2)": "PSF-2.0",
    r"the openldap public license version 2\.8": "OLDAP-2.8",
    r"university of illinois ncsa open source license": "NCSA",
    r"unicode license v3": "Unicode-3.0",
    r"sil open font license version 1\.1": "OFL-1.1",
    r"eclipse public license v(?:ersion)? ?1\.0": "EPL-1.0",
    r"eclipse public license v(?:ersion)? ?2\.0": "EPL-2.0",
    r"(?:usr share common licenses artistic|either the artistic license or)": "Artistic-1.0-Perl",
    r"server side public license version 1": "SSPL-1.0",
    r"business source license 1\.1": "BUSL-1.1",
    r"elastic license 2\.0": "Elastic-2.0",
    r"the software license agreement in chapter 1 and the supplement in chapter 2 contain license terms": spdx.NVIDIA_CUDA,
    r"license agreement for nvidia software development kits": spdx.NVIDIA_SDK,
    r"nvidia software license agreement": spdx.NVIDIA_SOFTWARE,
    r"intel end user license agreement for developer tools": spdx.INTEL,
    r"public domain (?:software|written by)|(?:is|are|been|in|into|to) (?:the )?public domain\b(?! use)": spdx.PUBLIC_DOMAIN,
}
_COMPILED = [(re.compile(phrase), licence) for phrase, licence in _PHRASES.items()]

_BSD = re.compile(r"redistributions? and use (?:of this software )?in source and binary forms")
_MIT = re.compile(r"permission is hereby granted free of charge to any person obtaining a copy")
_ISC = re.compile(r"permission to use copy modify (?:and )?(?:or )?distribute this software")
# No licence is longer than its distance to the next one's first words, or this.
_LONGEST = 4000

_GNU = re.compile(r"gnu (lesser general|library general|general|affero general|free documentation)(?: public)? license")
_GNU_SHORT = re.compile(r"(?<!common licenses )\b(lgpl|agpl|gpl) ?(?:version |v)?(\d(?:\.\d)?)(?:\+| or later| or any later)")
_GNU_BODY = re.compile(
    r"gnu (lesser general|library general|general|affero general|free documentation)(?: public)? license"
    r" version (\d(?:\.\d)?) (?:\d+ )?(?:february|march|june|november) \d{4}"
)
_VERSION = re.compile(r"(?:version|v) ?(\d(?:\.\d)?)\b(?!\.)")
_LATER = re.compile(r"^\+|any later version|or later|or newer|or higher")
_NO_GRANT = re.compile(r"can be found|may be found|see the file|is (?:available )?in\b|for more details|along with")
_COMMON = re.compile(r"usr share common licenses (lgpl|gpl|gfdl)\b(?: (\d(?:\.\d)?))?")
_FAMILY = {
    "general": "GPL",
    "gpl": "GPL",
    "affero general": "AGPL",
    "agpl": "AGPL",
    "lesser general": "LGPL",
    "library general": "LGPL",
    "lgpl": "LGPL",
    "free documentation": "GFDL",
    "gfdl": "GFDL",
}
# The first version there was; what "any version" begins at.
_FIRST = {"GPL": "1.0", "LGPL": "2.0", "AGPL": "1.0", "GFDL": "1.1"}


def found(text: str) -> tuple[str, ...]:
    """Every licence that the text grants, in the order of their places; each once."""
    reduced = _reduce(text)
    hits = [*_gnu(reduced), *_phrases(reduced), *_templates(reduced)]
    names = list(dict.fromkeys(name for _, name in sorted(hits)))
    # These waive by the same words.
    if {"Unlicense", "CC0-1.0"} & set(names):
        names = [name for name in names if name != spdx.PUBLIC_DOMAIN]
    return tuple(names)


def leading(text: str) -> str | None:
    """The licence that the text begins with: a package's own, before those of what it bundles."""
    return next(iter(found(text)), None)


def _reduce(text: str) -> str:
    text = text.lower().replace("licence", "license")
    # A point stays inside a number only.
    return " ".join(re.sub(r"[^a-z0-9.+]|\.(?!\d)|(?<!\d)\.", " ", text).split()) + " "


def _phrases(text: str) -> Iterator[tuple[int, str]]:
    # One text, said in two parts.
    llvm = "llvm exceptions to the apache 2.0 license" in text
    for phrase, licence in _COMPILED:
        for hit in phrase.finditer(text):
            if licence == "PSF-2.0" and "beopen com license agreement" in text:
                continue
            yield hit.start(), _LLVM if llvm and licence == "Apache-2.0" else licence


def _templates(text: str) -> Iterator[tuple[int, str]]:
    """Families whose members differ by a clause."""
    for start, decide in ((_BSD, _bsd), (_MIT, _mit), (_ISC, _isc)):
        places = [hit.start() for hit in start.finditer(text)]
        for place, after in pairwise([*places, len(text)]):
            if licence := decide(text[place : min(after, place + _LONGEST)]):
                yield place, licence


def _bsd(text: str) -> str | None:
    clauses = re.split(r"this (?:software|library|program|package) is provided", text, maxsplit=1)[0]
    if "redistributions" not in clauses:
        return None
    if "all advertising materials mentioning" in clauses:
        return "BSD-4-Clause-UC" if "university of california berkeley" in clauses else "BSD-4-Clause"
    if "you must cause the modified files to carry prominent notices" in clauses:
        return "BSD-3-Clause-Modification"
    if re.search(r"endorse or promote|promote products|neither the names?", clauses):
        return "BSD-3-Clause"
    return "BSD-2-Clause" if "in binary form" in clauses.replace("in source and binary forms", "", 1) else "BSD-1-Clause"


def _mit(text: str) -> str | None:
    if "publish distribute sublicense" not in text[:700]:
        return None
    if "redistributions of source code must retain" in text[:900]:
        return "NCSA"
    if "except as contained in this notice" in text[:1800]:
        return "X11"
    return "MIT" if "permission notice" in text[:1000] else "MIT-0"


def _isc(text: str) -> str | None:
    if "except as contained in this notice" in text[:1200]:
        return "curl"
    if "with or without fee is hereby granted" in text[:200]:
        return "ISC" if "provided that" in text[:300] else "0BSD"
    if "advertising or publicity" not in text[:900] and "supporting documentation" not in text[:600]:
        return None
    return "HPND-sell-variant" if "distribute and sell" in text[:200] else "HPND"


def _gnu(text: str) -> Iterator[tuple[int, str]]:
    """Grants under the GNU licences: "either version 2 of the License, or (at your option) any later version".

    A licence's own full text talks of many versions and other licences and is no grant; without any it stands for its very
    version, which is granted however the package means it.
    """
    bodies: list[tuple[int, str, str]] = []
    while body := _GNU_BODY.search(text):
        bodies.append((body.start(), _FAMILY[body[1]], body[2]))
        end = text.find("end of terms and conditions", body.end())
        # After its end it tells how to apply it; some have no such end.
        stop = end + 2500 if end >= 0 else body.end() + 20_000
        text = text[: body.start()] + "-" * (min(stop, len(text)) - body.start()) + text[stop:]
    granted: set[str] = set()
    for hit in _GNU.finditer(text):
        # "Section 7 of the GNU General Public License, version 3" explains a permission.
        if re.search(r"section \d+ of the $", text[: hit.start()][-20:]):
            continue
        rest = text[hit.end() : hit.end() + 200]
        if following := _GNU.search(rest):
            rest = rest[: following.start()]
        version = _VERSION.search(rest)
        if version is None or _NO_GRANT.search(rest[: version.end() + 20]):
            continue
        family = _FAMILY[hit[1]]
        granted.add(family)
        yield hit.start(), _version(family, version[1], later=bool(_LATER.search(rest[version.end() :][:70])))
    for hit in _GNU_SHORT.finditer(text):
        granted.add(_FAMILY[hit[1]])
        yield hit.start(), _version(_FAMILY[hit[1]], hit[2], later=True)
    for place, family, number in bodies:
        if family not in granted:
            granted.add(family)
            yield place, _version(family, number, later=False)
    for hit in _COMMON.finditer(text):
        # Debian's copies of the licences (Debian policy 12.5); a name without number is the newest: no version was chosen.
        family = _FAMILY[hit[1]]
        if family not in granted:
            yield hit.start(), _version(family, hit[2] or _FIRST[family], later=hit[2] is None)


def _version(family: str, number: str, *, later: bool) -> str:
    name = f"{family}-{number if '.' in number else number + '.0'}-{'or-later' if later else 'only'}"
    return spdx.canonical(name) or spdx.reference(name)
