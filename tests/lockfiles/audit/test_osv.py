"""Which versions an advisory is about, by OSV's own evaluation."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from lockfiles.audit import locked, osv
from lockfiles.audit.model import Finding, Package
from tests.lockfiles.audit.records import sample

REFUSED: tuple[Any, ...] = (
    None,
    [],
    7,
    {},
    {"id": "X", "affected": [7]},
    {"id": "X", "affected": [{"package": {"ecosystem": "PyPI"}}]},
)


def judged(package: Package, *bodies: Any) -> list[Finding]:
    records = [osv.read(json.dumps(kept)) for body in bodies for _, name, kept in osv.parse(body) if name == package.name]
    return osv.judge(package, records)


def record(*, name: str = "X-1", events: Any = None, **more: Any) -> dict[str, Any]:
    affected: dict[str, Any] = {"package": {"ecosystem": "PyPI", "name": "Some_Name"}}
    if events is not None:
        affected["ranges"] = [{"type": "ECOSYSTEM", "events": events}]
    return {"id": name, "modified": "2026-01-01T00:00:00Z", "affected": [{**affected, **more.pop("affected", {})}], **more}


def mine(version: str) -> Package:
    return locked.python("some.name", version)


@pytest.mark.parametrize(
    ("version", "holds"),
    [
        ("1.26.17", True),
        ("1.26.18", False),
        ("1.27", False),
        ("2.0.0", True),
        ("2.0.6", True),
        ("2.0.7", False),
        ("2.8", False),
    ],
)
def test_a_published_advisory_with_two_branches(version: str, holds: bool) -> None:
    found = judged(locked.python("urllib3", version), sample("PYSEC-2023-212"))
    assert bool(found) is holds
    if found:
        assert found[0].ids == ("CVE-2023-45803", "GHSA-g4mx-q9vg-27p4", "PYSEC-2023-212")
        assert (found[0].severity, found[0].named) == ("medium", True)
        assert found[0].fixed == (("1.26.18", "2.0.7") if version < "2" else ("2.0.7",))


@pytest.mark.parametrize("version", ["1.13.0", "1.13.0+cu117", "1.0.1.post2", "1.13.1rc1"])
def test_a_local_version_is_the_release_it_was_built_from(version: str) -> None:
    (found,) = judged(locked.python("torch", version), sample("PYSEC-2022-43015"))
    assert (found.severity, found.named, found.fixed) == ("high", False, ("1.13.1",))
    assert not judged(locked.python("torch", "1.13.1+cu117"), sample("PYSEC-2022-43015"))


@pytest.mark.parametrize(
    ("version", "holds"),
    [
        ("v0.35.0", True),
        ("v0.36.0", False),
        ("v0.36.0-rc.1", True),
        # A pseudo-version of a commit after v0.35.0, and one after v0.36.0.
        ("v0.35.1-0.20250101000000-abcdefabcdef", True),
        ("v0.36.1-0.20250401000000-abcdefabcdef", False),
        ("v0.40.0+incompatible", False),
    ],
)
def test_a_go_advisory_by_semantic_versions(version: str, holds: bool) -> None:
    assert bool(judged(Package("Go", "golang.org/x/net", version), sample("GO-2025-3503"))) is holds


def test_malware_is_the_worst() -> None:
    (found,) = judged(Package("PyPI", "3-0", "0.0.0.1"), sample("MAL-2025-2926"))
    assert (found.severity, found.fixed) == ("malware", ())
    assert not judged(Package("PyPI", "3-0", "0.0.0.2"), sample("MAL-2025-2926"))


@pytest.mark.parametrize(
    ("events", "inside", "outside"),
    [
        ([{"introduced": "1.0"}, {"fixed": "2.0"}], ["1.0", "1.9.9", "2.0rc1"], ["0.9", "2.0", "2.0.post1"]),
        ([{"introduced": "1.0"}, {"last_affected": "2.0"}], ["1.0", "2.0"], ["0.9", "2.0.1"]),
        ([{"introduced": "0"}], ["0.0.1", "99"], []),
        ([{"fixed": "2.0"}, {"introduced": "1.0"}], ["1.5"], ["2.0"]),
        ([{"introduced": "1.0"}, {"fixed": "2.0"}, {"introduced": "2.0"}], ["2.0", "3"], ["0.1"]),
        ([{"introduced": "1.0"}, {"limit": "1.5"}], ["1.4"], ["1.5"]),
    ],
)
def test_ranges(events: list[dict[str, str]], inside: list[str], outside: list[str]) -> None:
    assert [version for version in (*inside, *outside) if judged(mine(version), record(events=events))] == inside


def test_what_was_withdrawn_is_none() -> None:
    assert judged(mine("1.0"), record(events=[{"introduced": "0"}]))
    assert not judged(mine("1.0"), record(events=[{"introduced": "0"}], withdrawn="2026-01-02T00:00:00Z"))


def test_versions_that_are_written_otherwise_are_the_same() -> None:
    assert judged(mine("1.0.0"), record(affected={"versions": ["1.0"]}))
    assert judged(mine("1.0a1"), record(affected={"versions": ["1.0.alpha1", "not a version"]}))
    assert not judged(mine("1.1"), record(affected={"versions": ["1.0", "2004d", ""]}))


def test_a_range_of_commits_says_nothing_of_a_release() -> None:
    affected = {"ranges": [{"type": "GIT", "repo": "https://git.example/x", "events": [{"introduced": "0"}]}]}
    assert not judged(mine("1.0"), record(affected=affected))
    assert not list(osv.parse({"id": "X", "affected": [{"ranges": []}]}))


def test_records_that_name_each_other_are_one_defect_with_the_worst_severity() -> None:
    events = [{"introduced": "0"}, {"fixed": "2.0"}]
    own = record(name="PYSEC-2026-1", events=events, aliases=["CVE-2026-1"])
    other = record(name="GHSA-aaaa-bbbb-cccc", events=[{"introduced": "0"}, {"fixed": "2.1"}], aliases=["CVE-2026-1"])
    other["database_specific"] = {"severity": "CRITICAL"}
    apart = record(name="PYSEC-2026-2", events=events)
    first, second = sorted(judged(mine("1.0"), own, apart, other))
    assert first.ids == ("CVE-2026-1", "GHSA-aaaa-bbbb-cccc", "PYSEC-2026-1")
    assert (first.severity, first.fixed) == ("critical", ("2.0", "2.1"))
    assert second.ids == ("PYSEC-2026-2",)


@pytest.mark.parametrize(
    ("vector", "word", "severity"),
    [
        ({"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}, "", "critical"),
        ({"type": "CVSS_V4", "score": "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:N/VA:N/SC:N/SI:N/SA:N"}, "", "high"),
        ({"type": "CVSS_V2", "score": "AV:N/AC:L/Au:N/C:P/I:N/A:N"}, "", "medium"),
        ({"type": "CVSS_V3", "score": "CVSS:3.1/AV:L/AC:H/PR:H/UI:R/S:U/C:L/I:N/A:N"}, "CRITICAL", "low"),
        ({"type": "CVSS_V3", "score": "nonsense"}, "MODERATE", "medium"),
        ({"type": "Ubuntu", "score": "low"}, "", "high"),
    ],
)
def test_severity_by_vector_else_by_word_else_high(vector: dict[str, str], word: str, severity: str) -> None:
    body = record(events=[{"introduced": "0"}], severity=[vector], database_specific={"severity": word})
    (found,) = judged(mine("1.0"), body)
    assert found.severity == severity


@pytest.mark.parametrize("body", REFUSED)
def test_what_is_no_record_is_refused(body: Any) -> None:
    with pytest.raises(ValueError, match="no advisory"):
        list(osv.parse(body))


RELEASES = st.tuples(st.integers(0, 3), st.integers(0, 3)).map(lambda pair: f"{pair[0]}.{pair[1]}")


@given(RELEASES, st.lists(st.tuples(RELEASES, RELEASES), max_size=4), st.randoms())
def test_half_open_ranges_hold_exactly_what_lies_in_them(version: str, spans: list[tuple[str, str]], random: Any) -> None:
    ordered = sorted({point for span in spans for point in span}, key=Version)
    pairs = list(zip(ordered[::2], ordered[1::2], strict=False))
    events = [event for low, high in pairs for event in ({"introduced": low}, {"fixed": high})]
    random.shuffle(events)
    expected = any(Version(low) <= Version(version) < Version(high) for low, high in pairs)
    assert bool(judged(mine(version), record(events=events))) is expected
