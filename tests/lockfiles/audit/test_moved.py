"""A relock says what the advisory data says of its moves, and asks nobody else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lockfiles import lockfile
from lockfiles.audit import data, moved
from lockfiles.changes import Locked
from lockfiles.model import Deb, SetLock, Wheel
from tests.lockfiles.audit.records import affects, write
from tests.lockfiles.conftest import artifact


@pytest.fixture
def known(published: Path) -> None:
    """`one` has one defect before 1.1, and another one from there on; the source package of libssl3 has one."""
    old = affects("one", {"introduced": "0"}, {"fixed": "1.1"})
    new = affects("one", {"introduced": "1.1"}, identifier="PYSEC-2026-2")
    tool = affects("tool", {"introduced": "0"}, {"fixed": "2.0"}, identifier="PYSEC-2026-3")
    releases = {"bookworm": {"status": "resolved", "fixed_version": "3.0-2", "urgency": "high"}}
    write(published, pypi=[old, new, tool], debian={"libssl3": {"CVE-2026-2": {"releases": releases}}})
    data.fetch()


def held(version: str = "", *, debian: str = "", tool: str = "") -> Locked:
    base = None
    if debian:
        deb = Deb("libssl3", debian, "amd64", artifact(f"libssl3_{debian}_amd64.deb"))
        base = replace(lockfile.read_base(), debs=(deb,))
    wheels = (Wheel("one", version, artifact(f"one-{version}-py3-none-any.whl")),) if version else ()
    small = SetLock("small", "", "2026-01-02", "3.11.2", "2.36", wheels)
    return Locked(base, {"small": small}, {"tool": tool} if tool else {})


def said(capsys: pytest.CaptureFixture[str], before: Locked, after: Locked) -> str:
    moved.show(before, after)
    return " ".join("".join(capsys.readouterr()).split())


def test_a_move_tells_what_it_fixes_and_what_it_brings(known: None, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, held("1.0"), held("1.1"))
    assert "fixed by one: PYSEC-2026-1 (high)" in text
    assert "brought by one: PYSEC-2026-2 (high)" in text
    assert "known defects of what moved: 1 fixed, 1 brought, 1 left" in text


def test_a_package_that_comes_or_goes_tells_it_too(known: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert "0 fixed, 1 brought, 1 left" in said(capsys, held(), held("1.0"))
    assert "1 fixed, 0 brought, 0 left" in said(capsys, held("1.0"), held())


def test_debian_packages_and_the_toolkit_tell_it_too(known: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert "fixed by libssl3: CVE-2026-2 (high)" in said(capsys, held(debian="3.0-1"), held(debian="3.0-2"))
    assert "fixed by tool: PYSEC-2026-3 (high)" in said(capsys, held(tool="1.0"), held(tool="2.0"))


def test_where_nothing_moved_nothing_is_said(known: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, held("1.0"), held("1.0")) == ""


def test_without_data_nothing_is_called_fixed(own_folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, held("1.0"), held("1.1"))
    assert "is not known: no advisory data" in text
    assert "invoke fetch --advisories" in text
    assert "0 brought" not in text


def test_a_version_that_no_rule_orders_is_said(known: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not judged: one 2004d" in said(capsys, held("1.0"), held("2004d"))
