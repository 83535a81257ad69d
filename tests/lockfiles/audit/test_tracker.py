"""Debian's verdicts, as its security tracker gives them."""

from __future__ import annotations

from typing import Any

import pytest

from lockfiles.audit import tracker
from lockfiles.audit.model import Finding, Package
from tests.lockfiles.audit.records import sample


def judged(version: str, **verdict: str) -> Finding | None:
    body = {"status": "open", "fixed_version": "", "urgency": "not yet assigned", "nodsa": "", "summary": "", **verdict}
    return tracker.judge(Package("Debian", "openssl", version, "libssl3"), "CVE-2026-1", body)


def test_a_published_record_is_about_this_release_alone() -> None:
    found = {(source, name): verdict for source, name, verdict in tracker.parse(sample("Debian"))}
    assert found["openssl", "CVE-2024-4741"]["fixed_version"] == "3.0.14-1~deb12u1"
    assert found["attr", "CVE-2026-54371"] == {
        "status": "open",
        "fixed_version": "",
        "urgency": "not yet assigned",
        "nodsa": "Minor issue",
        "summary": "",
    }


@pytest.mark.parametrize(
    ("version", "holds"),
    [
        ("3.0.11-1~deb12u2", True),
        ("3.0.14-1~deb12u1", False),
        ("3.0.14-1~deb12u1~bpo11+1", True),
        ("3.0.14-1", False),
        ("1:1.0-1", False),
    ],
)
def test_the_version_that_is_fixed_by_the_order_of_dpkg(version: str, holds: bool) -> None:
    found = judged(version, status="resolved", fixed_version="3.0.14-1~deb12u1")
    assert (found is not None) is holds
    if found:
        assert found.fixed == ("3.0.14-1~deb12u1",)


@pytest.mark.parametrize(
    ("verdict", "severity", "said"),
    [
        ({"urgency": "unimportant"}, "unimportant", ""),
        ({"urgency": "low**"}, "low", ""),
        ({"urgency": "high", "nodsa": "Minor issue"}, "high", "no security update of its own: Minor issue"),
        ({"nodsa": "Minor issue"}, "low", "no security update of its own: Minor issue"),
        ({"urgency": "end-of-life"}, "medium", "Debian ended its support of this package"),
        ({}, "medium", ""),
    ],
)
def test_debians_word_is_the_severity(verdict: dict[str, str], severity: str, said: str) -> None:
    found = judged("1.0", **verdict)
    assert found is not None
    assert (found.severity, found.said, found.fixed) == (severity, said, ())


@pytest.mark.parametrize(
    "verdict", [{"status": "undetermined"}, {"status": "resolved", "fixed_version": "0"}, {"status": "resolved"}]
)
def test_what_is_no_defect_here(verdict: dict[str, str]) -> None:
    assert judged("1.0", **verdict) is None


@pytest.mark.parametrize("body", [None, [], {"x": 7}, {"x": {"CVE": {}}}, {"x": {"CVE": {"releases": 7}}}])
def test_another_form_is_refused(body: Any) -> None:
    with pytest.raises(ValueError, match="not the security tracker's form"):
        list(tracker.parse(body))
