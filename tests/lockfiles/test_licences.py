"""Licences as wheels and debs state them, told as SPDX expressions; and never a guess."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import LockError
from lockfiles import licences, lockfile
from lockfiles.licences import debian_copyright, spdx
from lockfiles.licences import table as licence_table
from lockfiles.licences import texts as licence_texts
from lockfiles.model import BaseLock, Deb, SetLock, Wheel
from tests.lockfiles.conftest import artifact

MIT = """The MIT License

Copyright (c) 2026 Someone

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software
is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.
"""
_BSD_1 = """Redistribution and use in source and binary forms, with or without
# modification, are permitted provided that the following conditions are met:
# 1. Redistributions of source code must retain the above copyright notice.
"""
_BSD_2 = "2. Redistributions in binary form must reproduce the above copyright notice in the documentation.\n"
_BSD_3 = "3. Neither the name of the X nor the names of its contributors may be used to endorse or promote products.\n"
_BSD_ADS = "3. All advertising materials mentioning features or use of this software must display an acknowledgement.\n"
_BSD_END = 'THIS SOFTWARE IS PROVIDED BY THE X "AS IS"; they neither endorse or promote products.\n'
BSD_3 = _BSD_1 + _BSD_2 + _BSD_3 + _BSD_END
ISC = "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted, "
APACHE = "                                 Apache License\n                           Version 2.0, January 2004\n"
LLVM = "\n---- LLVM Exceptions to the Apache 2.0 License ----\nAs an exception, if, as a result of your compiling\n"
CUDA = """End User License Agreement
---
Preface
---
The Software License Agreement in Chapter 1 and the Supplement
in Chapter 2 contain license terms and conditions. LICENSE AGREEMENT FOR NVIDIA SOFTWARE DEVELOPMENT KITS
"""
GPL_NOTICE = """This program is free software; you can redistribute it and/or modify it under the terms of the GNU General
Public License as published by the Free Software Foundation; either version 2 of the License, or (at your option) any later
version. See the GNU General Public License for more details."""
GPL_3 = """GNU GENERAL PUBLIC LICENSE Version 3, 29 June 2007 ... 13. Use with the GNU Affero General Public License, version 3
... either version 3 of the GNU General Public License, or any later version ... END OF TERMS AND CONDITIONS
How to Apply These Terms: the GNU General Public License; either version 3 of the License, or any later version."""

TEXTS = {
    "mit": (MIT, ["MIT"]),
    "mit_without_the_notice": (MIT.partition("The above")[0], ["MIT-0"]),
    "bsd_1": (_BSD_1 + _BSD_END, ["BSD-1-Clause"]),
    "bsd_2_whose_disclaimer_speaks_of_endorsement": (_BSD_1 + _BSD_2 + _BSD_END, ["BSD-2-Clause"]),
    "bsd_3_behind_comment_signs": (BSD_3, ["BSD-3-Clause"]),
    "bsd_4": (_BSD_1 + _BSD_2 + _BSD_ADS + _BSD_3 + _BSD_END, ["BSD-4-Clause"]),
    "isc": (ISC + "provided that the above copyright notice appear in all copies.", ["ISC"]),
    "isc_without_a_condition": (ISC + "THE SOFTWARE IS PROVIDED", ["0BSD"]),
    "apache": (APACHE, ["Apache-2.0"]),
    "apache_with_an_exception_at_its_end": (APACHE + LLVM, ["Apache-2.0 WITH LLVM-exception"]),
    "cuda_which_holds_the_sdk_terms": (CUDA, [spdx.NVIDIA_CUDA, spdx.NVIDIA_SDK]),
    "gpl_or_later": (GPL_NOTICE, ["GPL-2.0-or-later"]),
    "gpl_only": ("under the GNU General Public License, version 2. Nothing else.", ["GPL-2.0-only"]),
    "gpl_with_a_plus": ("licensed under GNU Lesser General Public License (LGPL) version 2.1+, and", ["LGPL-2.1-or-later"]),
    "gpl_in_full_grants_its_own_version_alone": (GPL_3, ["GPL-3.0-only"]),
    "gpl_in_full_below_a_notice": (GPL_NOTICE + GPL_3, ["GPL-2.0-or-later"]),
    "gpl_as_debian_refers_to_it": ("the text is in /usr/share/common-licenses/LGPL-2.1", ["LGPL-2.1-only"]),
    "gpl_without_a_version": ("see /usr/share/common-licenses/GPL.", ["GPL-1.0-or-later"]),
    "gpl_reference_beside_a_grant": (GPL_NOTICE + " See /usr/share/common-licenses/GPL-3.", ["GPL-2.0-or-later"]),
    "gpl_that_explains_a_permission": ("under section 7 of the GNU General Public License, version 3.", []),
    "two_in_their_order": (BSD_3 + MIT, ["BSD-3-Clause", "MIT"]),
    "unlicense_is_more_than_public_domain": (
        "This is free and unencumbered software released into the public domain.",
        ["Unlicense"],
    ),
    "talk": ("All rights reserved. Ask us about a license, version 2, or MIT, the institute.", []),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_recognised(name: str) -> None:
    text, expected = TEXTS[name]
    assert list(licence_texts.found(text)) == expected


def _metadata(*lines: str) -> str:
    return "\n".join(["Metadata-Version: 2.4", "Name: one", "Version: 1.0", *lines, "", "License: MIT in the description"])


def _class(*names: str) -> list[str]:
    return [f"Classifier: License :: OSI Approved :: {name}" for name in names]


PROPRIETARY = "Classifier: License :: Other/Proprietary License"
METADATA: dict[str, tuple[list[str], dict[str, str], str]] = {
    "expression_wins": (["License-Expression: mit", "License: BSD", *_class("Apache Software License")], {}, "MIT"),
    "expression_as_declared": (["License-Expression: MPL-2.0 AND (Apache-2.0 OR MIT)"], {}, "MPL-2.0 AND (Apache-2.0 OR MIT)"),
    "expression_that_is_none": (["License-Expression: Apache 2"], {}, spdx.UNKNOWN),
    "field_with_an_expression_beats_classifiers": (
        ["License: MIT OR Apache-2.0", *_class("MIT License", "Apache Software License")],
        {},
        "MIT OR Apache-2.0",
    ),
    "classifiers_without_a_relation": (
        ["License: MIT License", *_class("MIT License", "Apache Software License")],
        {},
        "Apache-2.0 AND MIT",
    ),
    "classifier": (_class("GNU Lesser General Public License v3 or later (LGPLv3+)"), {}, "LGPL-3.0-or-later"),
    "bsd_by_the_field": (["License: BSD-3-Clause", *_class("BSD License")], {}, "BSD-3-Clause"),
    "bsd_by_the_text_in_the_field": (
        ["License: " + BSD_3.replace("\n", "\n        "), *_class("BSD License")],
        {},
        "BSD-3-Clause",
    ),
    "bsd_by_the_licence_file": (["License: BSD", *_class("BSD License")], {"licenses/LICENSE": BSD_3}, "BSD-3-Clause"),
    "bsd_by_nothing": (["License: BSD", *_class("BSD License")], {}, "LicenseRef-BSD"),
    "free_names": (["License: Apache License, Version 2.0"], {}, "Apache-2.0"),
    "free_names_short": (["License: Apache 2.0 License"], {}, "Apache-2.0"),
    "free_names_bsd": (["License: 3-Clause BSD License"], {}, "BSD-3-Clause"),
    "free_names_mit": (["License: The MIT License"], {}, "MIT"),
    "a_file_name_in_the_field": (["License: LICENCE.txt"], {"LICENSE": APACHE}, "Apache-2.0"),
    "text_alone": ([], {"licenses/LICENSE.txt": MIT}, "MIT"),
    "texts_of_two_licences": ([], {"LICENSE-APACHE": APACHE, "LICENSE-MIT": MIT}, "Apache-2.0 AND MIT"),
    "texts_of_what_is_bundled_do_not_count": (
        [],
        {"licenses/third_party/LICENSE": MIT, "LICENSE-3RD-PARTY.txt": MIT},
        spdx.UNKNOWN,
    ),
    "nothing": ([], {}, spdx.UNKNOWN),
    "nvidia_by_its_text": (
        ["License-Expression: LicenseRef-NVIDIA-Proprietary"],
        {"licenses/License.txt": CUDA},
        spdx.NVIDIA_CUDA,
    ),
    "nvidia_whose_text_is_free": (
        ["License-Expression: LicenseRef-NVIDIA-Proprietary"],
        {"licenses/License.txt": BSD_3},
        "BSD-3-Clause",
    ),
    "nvidia_without_a_text": (["License: NVIDIA Proprietary Software"], {}, spdx.NVIDIA),
    "proprietary_field_that_is_free": (
        ["License: Apache 2.0", PROPRIETARY],
        {"LICENSE": APACHE + LLVM},
        "Apache-2.0 WITH LLVM-exception",
    ),
    "proprietary_by_its_text": (
        [PROPRIETARY],
        {"licenses/LICENSE": "NVIDIA Software License Agreement\n\nIMPORTANT"},
        spdx.NVIDIA_SOFTWARE,
    ),
    "proprietary_without_a_text": ([PROPRIETARY], {}, spdx.PROPRIETARY),
    "intel": (["License: Intel End User License Agreement for Developer Tools", PROPRIETARY], {}, spdx.INTEL),
}


@pytest.mark.parametrize("name", METADATA)
def test_a_wheel_is_under_what_its_metadata_says(name: str) -> None:
    lines, texts, expected = METADATA[name]
    assert licences.of_metadata(_metadata(*lines), texts) == expected


HEAD = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: one\n"


def _stanzas(*pairs: tuple[str, str]) -> str:
    return HEAD + "".join(f"\nFiles: {files}\nCopyright: someone\nLicense: {licence}\n" for files, licence in pairs)


SHORT_NAMES = {
    "Expat": "MIT",
    "BSD-3-clause": "BSD-3-Clause",
    "GPL-2+": "GPL-2.0-or-later",
    "GPL-3": "GPL-3.0-only",
    "GPL-2.0.0": "GPL-2.0-only",
    "LGPL": "LGPL-2.0-or-later",
    "Apache-2": "Apache-2.0",
    "GFDL-NIV-1.3+": "GFDL-1.3-no-invariants-or-later",
    "public-domain": "LicenseRef-public-domain",
    "GPL-1+ or Artistic": "GPL-1.0-or-later OR Artistic-1.0-Perl",
    "GPL-1+ or Artistic, and Expat": "(GPL-1.0-or-later OR Artistic-1.0-Perl) AND MIT",
    "REGCOMP, and GPL-1+ or Artistic": "LicenseRef-REGCOMP AND (GPL-1.0-or-later OR Artistic-1.0-Perl)",
    "GPL-2+ or Artistic and Expat": "GPL-2.0-or-later OR (Artistic-1.0-Perl AND MIT)",
    "ISC and/or LGPL-2.1+": "ISC AND LGPL-2.1-or-later",
    "GPL-2+ with Libtool exception": "GPL-2.0-or-later WITH Libtool-exception",
    "GPL-2 with Linux-syscall-note exception": "GPL-2.0-only WITH Linux-syscall-note",
    "GPL-3+-WITH-BISON-EXCEPTION": "GPL-3.0-or-later WITH Bison-exception-2.2",
    "GPL-2+ with OpenSSL exception": "LicenseRef-GPL-2.0-or-later-with-OpenSSL-exception",
    "GPL-3+ and FSFULLR": "GPL-3.0-or-later AND FSFULLR",
    "BSD-3-clause (odd)": "LicenseRef-BSD-3-clause-odd",
    "...": spdx.UNKNOWN,
}


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_debians_short_names_become_spdx(name: str) -> None:
    assert debian_copyright.of_short_name(name, {}) == SHORT_NAMES[name]


COPYRIGHTS = {
    "union_sorted": (_stanzas(("*", "Zlib"), ("a", "Expat"), ("b", "Zlib")), "MIT AND Zlib"),
    "alternatives_once": (
        _stanzas(("*", "GPL-1+ or Artistic"), ("a", "Artistic or GPL-1+")),
        "Artistic-1.0-Perl OR GPL-1.0-or-later",
    ),
    "packaging_is_not_in_the_deb": (_stanzas(("*", "Zlib"), ("debian/*", "GPL-3+")), "Zlib"),
    "patches_are": (_stanzas(("*", "Zlib"), ("debian/patches/*", "GPL-3+")), "GPL-3.0-or-later AND Zlib"),
    "packaging_alone": (_stanzas(("debian/*", "GPL-2+")), "GPL-2.0-or-later"),
    "macro_permission_by_its_text": (
        _stanzas(("m4/*", "GPL-3+ with Autoconf exception"))
        + "\nLicense: GPL-3+ with Autoconf exception\n scripts that are the output of Autoconf\n when processing the Macro.\n",
        "GPL-3.0-or-later WITH Autoconf-exception-macro",
    ),
    "prose": (f"This package was debianized by someone.\n\n{GPL_NOTICE}\n\n{MIT}", "GPL-2.0-or-later AND MIT"),
    "prose_in_the_form": (HEAD + f"\nComment: {GPL_NOTICE}".replace("\n", "\n "), "GPL-2.0-or-later"),
    "empty": ("", spdx.UNKNOWN),
}


@pytest.mark.parametrize("name", COPYRIGHTS)
def test_a_copyright_file_is_told(name: str) -> None:
    text, expected = COPYRIGHTS[name]
    assert debian_copyright.of_text(text) == expected


def _deb(folder: Path, name: str, *, text: str | None = None, link: str = "", whole: bool = True) -> Path:
    """A .deb as deb(5) describes it, with a copyright file or a documentation folder that is a link."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        info = tarfile.TarInfo(f"./usr/share/doc/{name}" + ("/copyright" if text is not None else ""))
        if link:
            info.type, info.linkname = tarfile.SYMTYPE, link
        elif text is not None:
            info.size = len(text.encode())
        tar.addfile(info, io.BytesIO((text or "").encode()))
    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w:xz"):
        pass
    body = b"!<arch>\n"
    for member, content in (
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", control.getvalue()),
        ("data.tar.xz", data.getvalue()),
    ):
        body += (
            f"{member:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2)
        )
    path = folder / f"{name}.deb"
    path.write_bytes(body if whole else body[: len(body) // 2])
    return path


def test_debs_are_told_and_shared_documentation_is_followed(tmp_path: Path) -> None:
    paths = {
        "one": _deb(tmp_path, "one", text=_stanzas(("*", "Expat"))),
        "two": _deb(tmp_path, "two", link="one"),
        "three": _deb(tmp_path, "three", link="two"),
        "ring": _deb(tmp_path, "ring", link="ring"),
        "astray": _deb(tmp_path, "astray", link="../elsewhere"),
        "silent": _deb(tmp_path, "silent"),
    }
    told = licences.of_debs(paths)
    assert told == {"one": "MIT", "two": "MIT", "three": "MIT", **dict.fromkeys(("ring", "astray", "silent"), spdx.UNKNOWN)}
    assert list(told) == list(paths)


@pytest.mark.parametrize("content", [b"", b"no deb", None])
def test_what_is_no_deb_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = _deb(tmp_path, "one", text="x" * 4000, whole=False)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LockError, match=r"one: not a deb: .*one\.deb"):
        licences.of_debs({"one": path})


EXPRESSIONS = {
    "mit": "MIT",
    "GPL-2.0+": "GPL-2.0-or-later",
    "Apache-2.0 with LLVM-exception": "Apache-2.0 WITH LLVM-exception",
    "LicenseRef-a.b-1": "LicenseRef-a.b-1",
    "LicenseRef-a_b": None,
    "LicenseRef-a+": None,
    "Apache 2.0": None,
    "LLVM-exception": None,
    "MIT WITH MIT": None,
    "(MIT": None,
    "MIT OR": None,
    "": None,
    "(" * 5000: None,
}


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_only_spdx_expressions_pass_for_them(text: str) -> None:
    assert spdx.canonical(text) == EXPRESSIONS[text]


NON_FREE = {
    "MIT": False,
    "LicenseRef-public-domain": False,
    "LicenseRef-NVIDIA-CUDA-EULA": True,
    "MIT AND LicenseRef-NVIDIA-SDK-EULA": True,
    "MIT OR LicenseRef-NVIDIA-SDK-EULA": False,
    "CC-BY-NC-4.0": True,
    "BUSL-1.1": True,
    "SSPL-1.0 WITH GCC-exception-3.1": True,
    "AGPL-3.0-only": False,
}


@pytest.mark.parametrize("expression", NON_FREE)
def test_what_is_not_free_is_told(expression: str) -> None:
    assert spdx.non_free(expression) is NON_FREE[expression]


_TERMS = st.sampled_from(
    ["MIT", "GPL-2+", "and", "or", "with", "exception", "(", ")", ",", "GNU", "General Public License", "version 2"]
)
_PHRASES = st.one_of(st.text(max_size=60), st.lists(_TERMS, max_size=12).map(" ".join))


@settings(max_examples=300, deadline=None)
@given(_PHRASES, _PHRASES, _PHRASES)
def test_any_metadata_gives_a_valid_expression(field: str, classifier: str, text: str) -> None:
    metadata = _metadata(f"License: {field}", f"Classifier: License :: OSI Approved :: {classifier}")
    for one in (metadata, field, _metadata(f"License-Expression: {field}")):
        told = licences.of_metadata(one, {"LICENSE": text})
        assert spdx.canonical(told) == told


@settings(max_examples=300, deadline=None)
@given(_PHRASES, _PHRASES, st.booleans())
def test_any_copyright_file_gives_a_valid_sorted_expression(name: str, text: str, form: bool) -> None:
    told = debian_copyright.of_text(_stanzas(("*", name), ("a", text)) + text if form else f"{name}\n{text}")
    assert spdx.canonical(told) == told
    assert spdx.join([told]) == told


@given(st.lists(st.one_of(st.sampled_from([*EXPRESSIONS, "MIT OR ISC", "ISC OR MIT"]), st.text(max_size=20)), max_size=5))
def test_a_union_is_valid_and_does_not_depend_on_order(parts: list[str]) -> None:
    told = spdx.join(parts)
    assert spdx.canonical(told) == told
    assert told == spdx.join(reversed(parts)) == spdx.join([*parts, *parts])


def _wheel(name: str, licence: str) -> Wheel:
    return Wheel(name, "1", artifact(f"{name}-1.whl"), licence=licence)


CUDA_WHEEL, BOTH = _wheel("cuda", spdx.NVIDIA_CUDA), _wheel("both", "MIT AND (Apache-2.0 OR ISC)")
BASE = BaseLock(
    "", "2026-01-02", (Deb("old", "1", "all", artifact("old")), Deb("sed", "1", "all", artifact("sed"), licence="MIT"))
)
SET = SetLock("small", "", "2026-01-02", "3.11.2", "2.36", (BOTH, CUDA_WHEEL))


def test_the_table_counts_a_package_of_two_sets_once_per_licence_and_puts_the_non_free_first() -> None:
    rows = licence_table.table(BASE, [SET, dataclasses.replace(SET, name="other")])
    assert [(row.licence, row.packages, row.non_free) for row in rows] == [
        (spdx.NVIDIA_CUDA, ("cuda",), True),
        ("MIT", ("both", "sed"), False),
        ("(Apache-2.0 OR ISC)", ("both",), False),
        (spdx.UNKNOWN, ("old",), False),
    ]
    assert rows[1].size == BOTH.artifact.size + len("sed")


def test_the_table_is_printed_with_what_each_lock_weighs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lockfile, "read_base", lambda: BASE)
    monkeypatch.setattr(lockfile, "read_set", lambda _: SET)
    outcome = licence_table.show(["small"])
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["NON-FREE", spdx.NVIDIA_CUDA, "1", "10", "B", "cuda"] in said
    assert ["MIT", "2", "13", "B", "both,", "sed"] in said
    assert ["base", "2", "6", "B", "0", "B", "1"] in said
    assert ["small", "2", "20", "B", "10", "B", "0"] in said
    assert outcome == "4 packages under 4 licences; 1 non-free, 10 B"


AGPL_TEXT = "GNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3, 19 November 2007\n\nEveryone is permitted to copy"
GPL_TEXT = "GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007\n\nEveryone is permitted to copy"


@pytest.mark.parametrize(
    ("lines", "texts", "expected"),
    [
        (("License: MIT", "Classifier: License :: OSI Approved :: GNU Affero General Public License v3"), {}, "AGPL-3.0"),
        (("Classifier: License :: OSI Approved :: MIT License",), {"LICENSE": AGPL_TEXT}, "AGPL-3.0"),
        (("License-Expression: MIT",), {"licenses/COPYING": GPL_TEXT}, "GPL-3.0"),
    ],
    ids=["field_against_classifier", "classifier_against_text", "expression_against_text"],
)
def test_a_far_reaching_licence_is_not_hidden_behind_a_milder_word(
    lines: tuple[str, ...], texts: dict[str, str], expected: str
) -> None:
    found = licences.of_metadata("\n".join(["Metadata-Version: 2.4", "Name: x", "Version: 1", *lines, ""]), texts)
    assert " AND " in found
    assert expected in found
    assert "MIT" in found


@pytest.mark.parametrize("declared", ["LGPL-3.0-or-later", "MIT OR GPL-3.0-or-later", "GPL-3.0-only"])
def test_a_text_that_the_declared_licence_accounts_for_adds_nothing(declared: str) -> None:
    said = f"Metadata-Version: 2.4\nName: x\nVersion: 1\nLicense-Expression: {declared}\n"
    assert licences.of_metadata(said, {"LICENSE": GPL_TEXT}) == declared
