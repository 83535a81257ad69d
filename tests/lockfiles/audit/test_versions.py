"""The order of versions: against the rules' own examples."""

from __future__ import annotations

import itertools

import pytest

from lockfiles.audit import versions
from lockfiles.audit.model import Ecosystem

# semver.org, 11.4.4; with Go's pseudo-versions and what lacks a part.
GO = "v0.0.0-20190101000000-aaaaaaaaaaaa v0.0.1 v1.0.0-alpha v1.0.0-alpha.1 v1.0.0-alpha.beta v1.0.0-beta v1.0.0-beta.2"
GO += " v1.0.0-beta.11 v1.0.0-rc.1 v1.0.0 v1.0.1-0.20200101000000-aaaaaaaaaaaa v1.0.1 v1.2 v1.10.0 v2.0.0+incompatible"
DEBIAN = "1.0~rc1-1 1.0-1~deb12u1 1.0-1 1.0-1+b1 1.0-1.1 1.0-10 1.0a-1 1:0.1-1"
PYTHON = "1.0.dev1 1.0a1 1.0rc1 1.0 1.0.post1 1.1 1!0.1"


@pytest.mark.parametrize(("ecosystem", "ordered"), [("Go", GO), ("Debian", DEBIAN), ("PyPI", PYTHON)])
def test_each_comes_before_the_next(ecosystem: Ecosystem, ordered: str) -> None:
    for low, high in itertools.pairwise(ordered.split()):
        assert versions.key(ecosystem, low) < versions.key(ecosystem, high), f"{low} < {high}"


@pytest.mark.parametrize(("one", "other"), [("v1.2", "1.2.0"), ("v1.0.0+a", "v1.0.0+b"), ("1", "v1.0.0")])
def test_what_is_the_same_to_go(one: str, other: str) -> None:
    assert versions.key("Go", one) == versions.key("Go", other)


@pytest.mark.parametrize(("ecosystem", "text"), [("Go", "latest"), ("Go", ""), ("PyPI", "2004d"), ("Debian", "a b")])
def test_what_is_no_version_is_said(ecosystem: Ecosystem, text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        versions.key(ecosystem, text)
