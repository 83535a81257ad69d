"""What packages say of their own licences, read from the artifacts, as SPDX expressions (SPDX specification 2.3, Annex D).

It is what the authors declare for the package; what a wheel bundles of others stands in the licence files it brings along.
What cannot be told is `LicenseRef-unknown`, never a guess.
"""

from __future__ import annotations

import lzma
import posixpath
import re
import tarfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from debian.arfile import ArError
from debian.debfile import DebError, DebFile
from packaging.metadata import RawMetadata, parse_email

from common.errors import LockError
from lockfiles.licences import debian_copyright, spdx
from lockfiles.licences import texts as licence_texts

# Trove classifiers that name one licence. The PyPA lists more as ambiguous (PEP 639, appendix "Mapping"); those that matter:
# Apache 1 ended before wheels began; "MIT" is the licence of that name on SPDX's list; a GNU version without "or later" is that
# version. "BSD License", "Other/Proprietary License" and their like name a family: their line is empty.
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "Eclipse Public License 1.0 (EPL-1.0)": "EPL-1.0",
    "Eclipse Public License 2.0 (EPL-2.0)": "EPL-2.0",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 (LGPLv2)": "LGPL-2.0-only",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "SIL Open Font License 1.1 (OFL-1.1)": "OFL-1.1",
    "The Unlicense (Unlicense)": "Unlicense",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "zlib/libpng License": "Zlib",
}

# The free License field, without "license", "version", "the" and punctuation.
_FREE = {
    "0 clause bsd": "0BSD",
    "2 clause bsd": "BSD-2-Clause",
    "3 clause bsd": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache software": "Apache-2.0",
    "apache software 2.0": "Apache-2.0",
    "asl 2.0": "Apache-2.0",
    "bsd 2 clause": "BSD-2-Clause",
    "bsd 3 clause": "BSD-3-Clause",
    "expat": "MIT",
    "modified bsd": "BSD-3-Clause",
    "mozilla public 2.0": "MPL-2.0",
    "mpl 2.0": "MPL-2.0",
    "new bsd": "BSD-3-Clause",
    "nvidia proprietary": spdx.NVIDIA,
    "nvidia proprietary software": spdx.NVIDIA,
    "intel end user agreement for developer tools": spdx.INTEL,
    "psf": "PSF-2.0",
    "psfl": "PSF-2.0",
    "python software foundation": "PSF-2.0",
    "simplified bsd": "BSD-2-Clause",
}
_FILLER = re.compile(r"\b(?:licen[cs]e[ds]?|version|the|under)\b|\bv(?=\d)|[^a-z0-9.]+|\.(?!\d)")
# A name is not longer; a License field that is holds the text itself.
_NAME = 100

# What one must not overlook because another line of the metadata says something milder.
_FAR_REACHING = ("AGPL-", "GPL-", "SSPL-", "BUSL-", "CC-BY-NC-")

# A licence file of the package itself, not of what it bundles.
_MAIN = re.compile(
    r"(?:licenses/)?(?:LICENSES/[^/]+|(?:[^/]*[-_.])?(?:LICEN[CS]ES?|COPYING|EULA)(?:[-_.][^/]*)?)", re.IGNORECASE
)
_OTHERS = re.compile(r"third|3rd|external|vendor|notice|bundled|binary|attribution", re.IGNORECASE)


def of_metadata(metadata: str, texts: Mapping[str, str] | None = None) -> str:
    """The licence of a wheel, by what is most exact in it.

    In turn: License-Expression (PEP 639), a License field that is an expression, the licence classifiers, a License field that
    names a licence or is the text of one, the licence files. A family without its member (`BSD License`) is told apart by what
    comes after it. A name that only points to a vendor's own terms is told apart by the terms that come along.

    Args:
        metadata: the METADATA file (core metadata specification).
        texts: the licence files by their path in dist-info.
    """
    raw, _ = parse_email(metadata)
    by_text = _of_texts(texts or {})
    classifiers = [c.rpartition(" :: ")[2] for c in raw.get("classifiers", []) if c.startswith("License :: ")]
    chosen = _chosen(raw, classifiers, by_text)
    return _with_contradictions(chosen, [by_text or "", *(_CLASSIFIERS.get(name, "") for name in classifiers)])


def _chosen(raw: RawMetadata, classifiers: list[str], by_text: str | None) -> str:
    declared = spdx.canonical(raw.get("license_expression", ""))
    if declared:
        return _refined(declared, by_text)
    field = raw.get("license", "").strip()
    named = _of_name(field)
    if named is not None and spdx.canonical(field):
        return _refined(named, by_text)
    # Several classifiers state no relation: keeping to all of them is right in any case.
    exact = [_CLASSIFIERS.get(name, "") for name in classifiers]
    if exact and all(exact):
        return spdx.join(exact)
    by_field = named or (licence_texts.leading(field) if len(field) > _NAME else None)
    if by_field:
        return _refined(by_field, by_text)
    return by_text or _of_family(field, classifiers)


def _with_contradictions(chosen: str, others: Iterable[str]) -> str:
    """The licence that was chosen, and each far-reaching one that another source states and it does not mention.

    A GPL text beside an LGPL is none: version 3 of that is written on top of it.
    """
    stated = [leg for other in others for leg in other.split(" AND ") if leg.startswith(_FAR_REACHING)]
    more = [leg for leg in stated if re.sub(r"-(only|or-later).*", "", leg) not in chosen]
    return spdx.join([chosen, *more]) if more and "LGPL" not in chosen else chosen


def _of_name(field: str) -> str | None:
    if len(field) > _NAME:
        return None
    if expression := spdx.canonical(field):
        return expression
    name = " ".join(_FILLER.sub(" ", field.lower()).split())
    return _FREE.get(name) or (spdx.canonical(name.upper()) if re.fullmatch(r"mit|isc|zlib|0bsd", name) else None)


def _of_family(field: str, classifiers: list[str]) -> str:
    """What is left to say when nothing tells the very licence."""
    if "Other/Proprietary License" in classifiers:
        return spdx.PROPRIETARY
    return "LicenseRef-BSD" if "BSD License" in classifiers or field.upper() == "BSD" else spdx.UNKNOWN


def _of_texts(texts: Mapping[str, str]) -> str | None:
    mains = [path for path in sorted(texts) if _MAIN.fullmatch(path) and not _OTHERS.search(path)]
    found = [licence for path in mains if (licence := licence_texts.leading(texts[path]))]
    return spdx.join(found) if found else None


def _refined(declared: str, by_text: str | None) -> str:
    # A LicenseRef has no meaning but the text it stands for (SPDX 2.3, section 10), and NVIDIA gives one name to many texts.
    # And a permission on top of a licence stands in its text where the name leaves it out.
    if by_text and (declared in (spdx.NVIDIA, spdx.PROPRIETARY) or by_text.startswith(f"{declared} WITH ")):
        return by_text
    return declared


@dataclass(frozen=True, slots=True)
class _Notice:
    """What a deb holds as its copyright file: the text, or the package whose documentation folder it shares."""

    text: str = ""
    package: str = ""


def of_debs(paths: Mapping[str, Path]) -> dict[str, str]:
    """The licences of debs, each from its copyright file (Debian policy 12.5).

    A package may share the documentation folder of another of its source (policy 12.3); that one must be among them.

    Args:
        paths: the files by package name.

    Returns:
        by package name; `LicenseRef-unknown` where there is no copyright file.

    Raises:
        LockError: a file is no deb.
    """
    with ThreadPoolExecutor() as pool:
        notices = dict(zip(paths, pool.map(_notice, paths, paths.values()), strict=True))
    found = {}
    for name in paths:
        seen, package = {name}, name
        while (other := notices[package].package) in notices and other not in seen:
            seen.add(other)
            package = other
        found[name] = debian_copyright.of_text(notices[package].text)
    return found


def _notice(name: str, path: Path) -> _Notice:
    folder = f"usr/share/doc/{name}"
    try:
        with DebFile(path) as deb:
            for member in deb.data.tgz():
                inside = posixpath.normpath(member.name)
                if inside in (folder, f"{folder}/copyright") and member.issym():
                    target = posixpath.normpath(posixpath.join(posixpath.dirname(inside), member.linkname))
                    return _Notice(package=target.removeprefix("usr/share/doc/").partition("/")[0])
                if inside == f"{folder}/copyright" and (file := deb.data.tgz().extractfile(member)):
                    return _Notice(text=file.read().decode("utf-8", "replace"))
    except (OSError, EOFError, ArError, DebError, tarfile.TarError, lzma.LZMAError) as problem:
        raise LockError(f"{name}: not a deb: {problem}", where=str(path), fix="run `invoke fetch` again") from None
    return _Notice()
