"""Debian's copyright files as SPDX expressions: the machine-readable form (Debian copyright format 1.0, once DEP-5) and prose.

The file is of the source package: it names the licence of every file there, also of those no binary package holds (tests, build
scripts). Which went into a deb it does not tell, so the expression is all of them: more than what binds the deb, never less.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from debian.deb822 import Deb822

from lockfiles.licences import spdx
from lockfiles.licences import texts as licence_texts

_FORMAT = re.compile(r"\A\s*format(?:-specification)?:\s*\S*(?:copyright-format|dep5|dep-5|CopyrightFormat)", re.IGNORECASE)

# Short names (the format's section 7.1) that are spelled otherwise on the SPDX list.
_NAMES = {
    # Debian's /usr/share/common-licenses/Artistic is Perl's variant: base-files' copyright file says so.
    "artistic": "Artistic-1.0-Perl",
    "artistic-1": "Artistic-1.0-Perl",
    "artistic-1.0": "Artistic-1.0-Perl",
    "perl": "Artistic-1.0-Perl OR GPL-1.0-or-later",
    "python": "Python-2.0",
    "expat": "MIT",
    "mit/x11": "MIT",
    "bsd3": "BSD-3-Clause",
    "boost": "BSL-1.0",
    "fsf-unlimited": "FSFUL",
    "openldap-2.8": "OLDAP-2.8",
    "pd": spdx.PUBLIC_DOMAIN,
    "public-domain": spdx.PUBLIC_DOMAIN,
    # No version given: any ever published (GPL 2 section 9, LGPL 2.1 section 13).
    "gpl": "GPL-1.0-or-later",
    "lgpl": "LGPL-2.0-or-later",
}
_GNU = re.compile(r"(A?GPL|LGPL|GFDL)(-NIV)?-(\d+(?:\.\d+)*)(\+)?(-no-invariants?)?", re.IGNORECASE)
_WITH = re.compile(r"(\S+)\s+with\s+(?:the\s+)?(.+?)(?:\s+exceptions?)?", re.IGNORECASE)
# Some write it as one word, `GPL-2+-autoconf-exception`.
_JOINED = re.compile(r"(A?GPL-[\d.]+\+?|LGPL-[\d.]+\+?)-(?:with-)?([a-z].*)-exceptions?", re.IGNORECASE)
_EXCEPTIONS = {
    # What Debian calls so is the permission of config.guess and its like; Autoconf's own, for its output, has other words.
    "autoconf": "Autoconf-exception-generic",
    "autoconf-data": "Autoconf-exception-generic",
    "bison": "Bison-exception-2.2",
    "bison-2.2": "Bison-exception-2.2",
    "classpath": "Classpath-exception-2.0",
    "font": "Font-exception-2.0",
    "libtool": "Libtool-exception",
    "linux-syscall-note": "Linux-syscall-note",
    "texinfo": "Texinfo-exception",
}
_AUTOCONF_MACRO = re.compile(r"output of autoconf\s+when processing the macro", re.IGNORECASE)


def of_text(text: str) -> str:
    """The licence of a copyright file, sorted; `LicenseRef-unknown` when nothing in it is recognised."""
    return (_machine_readable(text) if _FORMAT.search(text) else None) or spdx.join(licence_texts.found(text))


def _machine_readable(text: str) -> str | None:
    stanzas = list(Deb822.iter_paragraphs(text.splitlines(keepends=True), use_apt_pkg=False))
    licensed = [(stanza.get("Files", "").split(), *_parts(stanza["License"])) for stanza in stanzas if stanza.get("License")]
    texts = {name.lower(): body for _, name, body in licensed if body}
    files = [(globs, name) for globs, name, _ in licensed if globs and name]
    shipped = [name for globs, name in files if not all(map(_is_packaging, globs))]
    names = shipped or [name for _, name in files]
    return spdx.join(of_short_name(name, texts) for name in names) if names else None


def _is_packaging(glob: str) -> bool:
    # What builds the deb is not in it, and its licence would hide that of what is; patches change what is.
    return glob.startswith("debian/") and not glob.startswith("debian/patches/")


def _parts(field: str) -> tuple[str, str]:
    first, _, rest = field.partition("\n")
    return first.strip(), rest


def of_short_name(name: str, texts: Mapping[str, str]) -> str:
    """The SPDX expression of a License field's first line (section 7.2, "Syntax"): names with `and`, `or`, and commas.

    Args:
        name: the line.
        texts: the licences' texts, by name in lower case.

    Returns:
        the expression; for a name that SPDX's list lacks, a `LicenseRef-` of that name.
    """
    # "And/or" leaves the choice to the reader: who keeps both is right either way.
    text = re.sub(r"\band\s*/\s*or\b", "and", name, flags=re.IGNORECASE)
    # A comma closes what stands before it: "A or B, and C" is "(A or B) and C".
    parts = re.split(r"\s*,\s*", text)
    expression = ""
    for part in parts:
        word = re.match(r"(and|or)\s+", part, re.IGNORECASE)
        terms = re.split(r"\s+(and|or)\s+", part[word.end() if word else 0 :], flags=re.IGNORECASE)
        joined = " ".join(t.upper() if n % 2 else _term(t.strip(), texts) for n, t in enumerate(terms) if t.strip())
        if not joined:
            continue
        relation = word[1].upper() if word else "AND"
        expression = f"({expression}) {relation} ({joined})" if expression else joined
    return spdx.canonical(expression) or spdx.reference(name)


def _term(text: str, texts: Mapping[str, str]) -> str:
    match = _WITH.fullmatch(text) or _JOINED.fullmatch(text)
    if match is None:
        return _licence(text)
    licence, name = _licence(match[1]), match[2].lower()
    exception = _EXCEPTIONS.get(name)
    if name.startswith("autoconf") and _AUTOCONF_MACRO.search(texts.get(text.lower(), "")):
        exception = "Autoconf-exception-macro"
    # SPDX 2.3 has no exceptions outside its list; so the whole gets a name of its own.
    return (spdx.canonical(f"{licence} WITH {exception}") if exception else None) or spdx.reference(
        f"{licence} with {match[2]} exception"
    )


def _licence(name: str) -> str:
    if known := _NAMES.get(name.lower()):
        return f"({known})" if " OR " in known else known
    if gnu := _GNU.fullmatch(name):
        family, number = gnu[1].upper(), gnu[3].removesuffix(".0") if gnu[3].count(".") > 1 else gnu[3]
        invariants = "-no-invariants" if gnu[2] or gnu[5] else ""
        text = f"{family}-{number if '.' in number else number + '.0'}{invariants}-{'or-later' if gnu[4] else 'only'}"
        return spdx.canonical(text) or spdx.reference(name)
    # Trailing zeros mean nothing to Debian (section 7.1): Apache-2 is Apache-2.0.
    return spdx.canonical(name) or spdx.canonical(f"{name}.0") or spdx.reference(name)
